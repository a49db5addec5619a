"""Reading and writing frames: video files and folders of pictures, one frame at a time.

Frames are RGB uint8 [H,W,3].
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np

from maskfreevis_ext.data.images import read_frame
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.files import atomic_write, move_into_place

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")

logger = logging.getLogger(__name__)


class FrameSource(Protocol):
    """Frames of a video; can be iterated several times.

    Attributes:
        name: Short name of the video.
        fps: Frames per second, or None if unknown.
        num_frames: Number of frames; for a video file the number in its header, which may be wrong.
    """

    name: str
    fps: float | None
    num_frames: int

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read frame after frame."""


class FrameList:
    """Frames from picture files of one size.

    Args:
        paths: The files in order, at least one.
        name: Short name of the video.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], name: str) -> None:
        self.paths = [os.fspath(path) for path in paths]
        self.name = name
        self.fps: float | None = None
        self.num_frames = len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read frame after frame.

        Raises:
            DataError: A file is missing, is not a picture, or has another size than the first one.
        """
        shape = None
        for path in self.paths:
            frame = read_frame(path)
            if shape is not None and frame.shape != shape:
                raise DataError(
                    f"{path}: expected a frame of {shape[1]} x {shape[0]} pixels like"
                    f" {self.paths[0]}, got"
                    f" {frame.shape[1]} x {frame.shape[0]}. All frames of a video must have one"
                    " size."
                )
            shape = frame.shape
            yield frame


class VideoFile:
    """Frames of a video file, decoded by OpenCV.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing or no frame can be read from it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        if not self.path.is_file():
            raise DataError(f"{path}: there is no such file.")
        capture = cv2.VideoCapture(str(self.path))
        # OpenCV opens a truncated file without an error, and then reads no frame.
        is_readable = capture.isOpened() and capture.read()[0]
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(fps) if np.isfinite(fps) and fps > 0 else None
        self.num_frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        capture.release()
        if not is_readable:
            raise DataError(
                f"{path}: no frame can be read from this video: it is damaged, incomplete, or of a"
                " kind that OpenCV"
                " does not know. Convert it (ffmpeg -i IN OUT.mp4), or give a folder of frames."
            )

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read frame after frame.

        Raises:
            DataError: No frame can be read.
        """
        capture = cv2.VideoCapture(str(self.path))
        count = 0
        try:
            while True:
                is_read, frame = capture.read()
                if not is_read:
                    break
                count += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        if count == 0:
            raise DataError(f"{self.path}: no frame can be read from this video.")
        if count < self.num_frames:
            logger.warning(
                "%s: its header says %d frames, %d could be read.",
                self.path,
                self.num_frames,
                count,
            )


def open_frames(path: str | os.PathLike[str]) -> FrameList | VideoFile:
    """Open a video file, or a folder of pictures in natural order (frame2 before frame10).

    Args:
        path: File or folder.

    Raises:
        DataError: There is nothing at this path, no picture in the folder, or no frame in the
            video.
    """
    path = Path(path)
    if path.is_dir():
        names = [
            entry.name
            for entry in os.scandir(path)
            if entry.is_file()
            and not entry.name.startswith(".")
            and entry.name.lower().endswith(IMAGE_SUFFIXES)
        ]
        if not names:
            raise DataError(
                f"{path}: expected a folder of pictures ({', '.join(IMAGE_SUFFIXES)}), but it has"
                " none."
                " Give each video's own folder."
            )
        return FrameList(
            [path / name for name in sorted(names, key=natural_key)], path.resolve().name
        )
    if not path.exists():
        raise DataError(f"{path}: there is no such video file or folder of frames.")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FrameList([path], path.stem)
    return VideoFile(path)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that compares runs of digits as numbers: frame2 before frame10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part.lower()) for part in parts]


class FrameWriter:
    """Writes frames of one size to an mp4 file or into a folder; use it in a ``with`` block.

    A video is written to a temporary file, which is renamed at the end, so that an interrupted run
    leaves no incomplete file. Where OpenCV cannot encode video, frames are written to a folder of
    that name instead, with a warning in the log.

    Args:
        path: A file name with the ending .mp4, or a folder for 00000.jpg, 00001.jpg, ...
        fps: Frames per second of a video, > 0.

    Raises:
        ConfigError: fps is not a positive number, or the ending is that of another video format.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float = 10.0) -> None:
        self.path = Path(path)
        self.num_frames = 0
        self._fps = float(fps)
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] | None = None
        if not np.isfinite(self._fps) or self._fps <= 0:
            raise ConfigError(f"fps: expected a number > 0, got {fps}.")
        suffix = self.path.suffix.lower()
        if suffix in VIDEO_SUFFIXES and suffix != ".mp4":
            raise ConfigError(f"{self.path}: expected a file that ends in .mp4, or a folder.")
        self._is_video = suffix == ".mp4"
        self._part = self.path.with_name(f".{self.path.stem}.part.mp4")

    def __enter__(self) -> FrameWriter:
        """Return the writer; the file is created with the first frame."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the video; after an error the unfinished file is removed."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        if kind is not None:
            self._part.unlink(missing_ok=True)
            return
        self._check_part()
        move_into_place(self._part, self.path)

    def write(self, frame: np.ndarray) -> None:
        """Add a frame.

        Args:
            frame: RGB uint8 [H,W,3]. In a video an odd height or width is extended by repeating the
                last row or column, as the codec needs even sizes.

        Raises:
            ValueError: The frame is not uint8 [H,W,3], or has another size than the first one.
            DataError: The frame cannot be written.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(
                f"expected a frame uint8 [H,W,3], got {frame.dtype} {list(frame.shape)}."
            )
        if self._shape is None:
            self._shape = frame.shape
            self._start(frame)
        if frame.shape != self._shape:
            raise ValueError(
                f"expected a frame of shape {list(self._shape)}, got {list(frame.shape)}."
            )
        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if self._writer is not None:
            self._writer.write(_to_even(picture))
        else:
            write_image(self.path / f"{self.num_frames:05d}.jpg", frame)
        self.num_frames += 1

    def _start(self, frame: np.ndarray) -> None:
        if self._is_video:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            height, width = _to_even(frame).shape[:2]
            code = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]  # not in the stubs
            writer = cv2.VideoWriter(str(self._part), code, self._fps, (width, height))
            if writer.isOpened():
                self._writer = writer
                return
            writer.release()
            self._part.unlink(missing_ok=True)
            self.path = self.path.with_suffix("")
            logger.warning(
                "OpenCV cannot write mp4 here: the frames go to the folder %s instead.", self.path
            )
        self.path.mkdir(parents=True, exist_ok=True)

    def _check_part(self) -> None:
        """Count the frames of the written file, as OpenCV reports no error when a disk is full."""
        capture = cv2.VideoCapture(str(self._part))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if count != self.num_frames:
            self._part.unlink(missing_ok=True)
            raise DataError(
                f"{self.path}: expected a video of {self.num_frames} frames, got {count} on disk."
                " Is the disk full?"
            )


def write_image(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Write a picture; the ending decides the format.

    Args:
        path: The file; its folder is created if absent.
        picture: RGB uint8 [H,W,3].

    Raises:
        DataError: The file cannot be written.
    """
    path = Path(path)
    is_encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not is_encoded:
        raise DataError(f"{path}: the picture cannot be encoded.")
    try:
        with atomic_write(path) as file:
            file.write(data.tobytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error


def _to_even(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return picture
    return cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
