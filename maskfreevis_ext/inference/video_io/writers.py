"""Writing of frames: mp4 files that keep the time of each frame, folders of pictures."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from maskfreevis_ext.data.frame_files import VIDEO_SUFFIXES
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.files import atomic_write, move_into_place, temporary_file
from maskfreevis_ext.inference.video_io.encoders import Encoder, EncodingError, open_encoder

#: Endings of videos that are read, but not written.
NOT_WRITTEN = tuple(suffix for suffix in VIDEO_SUFFIXES if suffix != ".mp4")


class FrameWriter:
    """Writes frames of one size to an mp4 file or into a folder; use it in a ``with`` block.

    A video is written to a temporary file, which is renamed at the end, so that an interrupted run
    leaves no incomplete file.

    Args:
        path: A file name with the ending .mp4, or a folder for 00000.jpg, 00001.jpg, ...
        fps: Frames per second of a video whose frames have no times, > 0.
        suffix: Kind of the pictures of a folder, ".jpg" or ".png".

    Raises:
        ConfigError: fps is not a positive number, or the ending is that of another video format.
    """

    def __init__(
        self, path: str | os.PathLike[str], fps: float = 10.0, suffix: str = ".jpg"
    ) -> None:
        self.path = Path(path)
        self.num_frames = 0
        self._fps = float(fps)
        self._suffix = suffix
        self._encoder: Encoder | None = None
        self._shape: tuple[int, ...] | None = None
        self._end = 0.0
        self._files: list[Path] = []
        if not math.isfinite(self._fps) or self._fps <= 0:
            raise ConfigError(f"fps: expected a number > 0, got {fps}.")
        ending = self.path.suffix.lower()
        if ending in NOT_WRITTEN:
            raise ConfigError(f"{self.path}: expected a file that ends in .mp4, or a folder.")
        self._is_video = ending == ".mp4"
        self._part = contextlib.ExitStack()  # removes the temporary file
        self._part_path = Path()

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
        if kind is None:
            self.finish()
        elif self._encoder is not None:
            self._encoder.discard()
            self._part.close()

    def finish(self) -> list[Path]:
        """Complete what was written.

        Returns:
            The files.

        Raises:
            DataError: The end of the video cannot be written.
        """
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            try:
                with self._part:
                    encoder.finish(self._end)
                    move_into_place(self._part_path, self.path)
            except (EncodingError, OSError) as error:
                raise DataError(f"{self.path}: cannot be written: {error}.") from error
            self._files.append(self.path)
        return self._files

    def write(
        self, frame: np.ndarray, time: float | None = None, duration: float | None = None
    ) -> None:
        """Add a frame.

        Args:
            frame: RGB uint8 [H,W,3]. In a video an odd height or width is extended by repeating the
                last row or column, as the codec needs even sizes.
            time: When it is shown, seconds from the first frame, after all frames before it; None:
                by the frame rate.
            duration: How long it is shown if it is the last one, seconds.

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
        if self._encoder is None:
            self._files.append(self.path / f"{self.num_frames:05d}{self._suffix}")
            write_image(self._files[-1], frame)
        else:
            moment = self.num_frames / self._fps if time is None else time
            self._end = moment + (1 / self._fps if duration is None else duration)
            try:
                self._encoder.write(_to_even(frame), moment)
            except (EncodingError, OSError) as error:
                raise DataError(f"{self.path}: cannot be written: {error}.") from error
        self.num_frames += 1

    def _start(self, frame: np.ndarray) -> None:
        folder = self.path.parent if self._is_video else self.path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._is_video:
                height, width = _to_even(frame).shape[:2]
                temporary = temporary_file(self.path, ".part.mp4")
                self._part_path = Path(self._part.enter_context(temporary))
                self._encoder = open_encoder(self._part_path, (height, width), self._fps)
        except (EncodingError, OSError) as error:
            self._part.close()
            raise DataError(f"{self.path}: cannot be written: {error}.") from error


def check_encoding(path: str | os.PathLike[str], size: tuple[int, int], fps: float) -> None:
    """Encode one frame for a trial, before a long run.

    Args:
        path: The mp4 file that will be written, for the message.
        size: (H, W) of the frames.
        fps: Frames per second.

    Raises:
        DataError: No mp4 of such frames can be written here.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with FrameWriter(Path(folder) / "trial.mp4", fps) as writer:
                writer.write(np.zeros((*size, 3), np.uint8))
        except DataError as error:
            raise DataError(
                f"{path}: frames of {size[1]} x {size[0]} pixels cannot be encoded as mp4"
                f" ({error.__cause__ or error}). Save them as pictures: --save frames."
            ) from error


def check_image_name(path: str | os.PathLike[str]) -> None:
    """Check that a file name has the ending of a kind of picture that can be written.

    Args:
        path: The file.

    Raises:
        DataError: It has not.
    """
    # OpenCV judges by the ending alone.
    if not cv2.haveImageWriter(os.fspath(path)):
        raise DataError(
            f"{path}: the picture cannot be encoded; expected a name that ends in .png or .jpg."
        )


def write_image(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Write a picture; the ending decides the format.

    Args:
        path: The file; its folder is created if absent.
        picture: RGB uint8 [H,W,3].

    Raises:
        DataError: The file cannot be written, or the ending is not that of a picture.
    """
    path = Path(path)
    check_image_name(path)
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
