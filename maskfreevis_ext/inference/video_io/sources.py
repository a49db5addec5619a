"""Sources of frames: video files, lists of pictures, cameras."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from maskfreevis_ext.data.frame_check import describe_frames
from maskfreevis_ext.data.frame_headers import read_header
from maskfreevis_ext.data.frame_rules import DEFAULT_RULES, FrameRules
from maskfreevis_ext.data.images import image_size, read_frame
from maskfreevis_ext.errors import DataError, visible
from maskfreevis_ext.inference.video_io import decoders

DEFAULT_FPS = 10.0  #: Frames per second of pictures, and of a video that does not tell its own.

logger = logging.getLogger(__name__)


class TimedFrame(NamedTuple):
    """A frame and when it is shown.

    Attributes:
        number: Number of the frame in its source, from 0.
        picture: RGB uint8 [H,W,3].
        time: Seconds from the first frame.
        duration: Seconds until the next frame, > 0.
    """

    number: int
    picture: np.ndarray
    time: float
    duration: float


class FrameSource(Protocol):
    """Frames of a video; can be iterated several times, except for a camera.

    Attributes:
        name: Short name of the video.
        fps: Mean number of frames per second, or None if unknown.
        max_fps: The same where frames follow each other most closely.
        num_frames: Number of frames, or 0 if unknown; for a video file it may be wrong.
        inputs: The files and folders that are read.
        is_live: Whether the frames can be read only once.
    """

    name: str
    fps: float | None
    max_fps: float | None
    num_frames: int
    inputs: list[Path]
    is_live: bool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames in pixels."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read frame after frame."""

    def timed(self, fps: float | None = None) -> Iterator[TimedFrame]:
        """Read frame after frame, with times; ``fps`` replaces the time stamps."""

    def frame_name(self, index: int) -> str:
        """Name of the picture file of a frame, or of one that would be made for it."""


class _Source:
    """What all sources share.

    Args:
        name: Short name of the video.
        inputs: The files and folders that are read.
    """

    def __init__(self, name: str, inputs: list[Path]) -> None:
        self.name = visible(name)  # it is shown, and names what is written
        self.inputs = inputs
        self.fps: float | None = None
        self.max_fps: float | None = None
        self.num_frames = 0
        self.is_live = False

    def frame_name(self, index: int) -> str:
        """Name of the picture file that would be made for a frame."""
        return f"{index:05d}.jpg"


class FrameList(_Source):
    """Frames from picture files of one size.

    Args:
        paths: The files in order, at least one.
        name: Short name of the video.
        folder: The folder whose pictures they are, if it was named as a whole.
        rules: What is done with EXIF orientations and deep pixels.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        name: str,
        folder: Path | None = None,
        rules: FrameRules = DEFAULT_RULES,
    ) -> None:
        self.rules = rules
        self.files = [Path(path) for path in paths]
        super().__init__(name, [*self.files, *([] if folder is None else [folder])])
        self.num_frames = len(self.files)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the first picture.

        Raises:
            DataError: The picture cannot be read.
        """
        return image_size(self.files[0], self.rules)

    def check(self) -> None:
        """Compare the sizes of all pictures by their headers; say what is done with deep pixels.

        Raises:
            DataError: A file is missing, is not a picture, or has another size than the first one.
        """
        expected = self.size
        for path in self.files[1:]:
            self._check_size(path, image_size(path, self.rules), expected)
        first = str(self.files[0])
        header = read_header(first)
        if header.values and not header.fault:
            for line in describe_frames({first: header}, self.rules):
                logger.info("%s (the first frame): %s", first, line)

    def _check_size(self, path: Path, size: tuple[int, ...], expected: tuple[int, ...]) -> None:
        if size != expected:
            raise DataError(
                f"{path}: expected a frame of {expected[1]} x {expected[0]} pixels like"
                f" {self.files[0]}, got {size[1]} x {size[0]}. All frames of a video must have one"
                " size."
            )

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read frame after frame.

        Raises:
            DataError: A file is missing, is not a picture, or has another size than the first one.
        """
        size = None
        for path in self.files:
            frame = read_frame(path, rules=self.rules)
            size = size or frame.shape[:2]
            self._check_size(path, frame.shape[:2], size)
            yield frame

    def timed(self, fps: float | None = None) -> Iterator[TimedFrame]:
        """Read frame after frame.

        Args:
            fps: Frames per second; None: ``DEFAULT_FPS``.

        Raises:
            DataError: As in ``__iter__``.
        """
        step = 1 / (fps or DEFAULT_FPS)
        for index, frame in enumerate(self):
            yield TimedFrame(index, frame, index * step, step)

    def frame_name(self, index: int) -> str:
        """Name of the picture file of a frame."""
        return self.files[index].name


class VideoFile(_Source):
    """Frames of a video file; time stamps are believed before its header.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing, or is text, or no frame can be read from it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        super().__init__(self.path.stem, [self.path])
        if not self.path.is_file():
            raise DataError(f"{path}: there is no such file.")
        if decoders.is_text(self.path):
            raise DataError(
                f"{path}: no frame can be read from this video: it is text, whatever its name"
                " says. Playlists and scripts, which open other files, are not followed."
            )
        info = decoders.probe(self.path)
        if info is None:
            raise DataError(
                f"{path}: no frame can be read from this video: it is empty, damaged, incomplete,"
                " or of an unknown kind. Convert it (ffmpeg -i IN OUT.mp4), or give a folder of"
                " frames."
            )
        self.info = info
        self.fps, self.max_fps, self.num_frames = info.fps, info.max_fps, info.num_frames

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames in pixels, upright."""
        return self.info.size

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read frame after frame.

        Raises:
            DataError: No frame can be read.
        """
        return (frame for frame, _ in self._decode())

    def timed(self, fps: float | None = None) -> Iterator[TimedFrame]:
        """Read frame after frame; the last one lasts as long as the header says, or a mean frame.

        Args:
            fps: Constant rate instead of the time stamps.

        Raises:
            DataError: No frame can be read.
        """
        step = 1 / (fps or self.fps or DEFAULT_FPS)
        stamped = ((frame, None if fps else stamp) for frame, stamp in self._decode())
        held: TimedFrame | None = None
        start, longest = 0.0, 0.0
        for frame, stamp in stamped:
            if held is None:
                start = stamp or 0.0
                held = TimedFrame(0, frame, 0.0, step)
                continue
            moment = held.time + step if stamp is None else stamp - start
            if moment <= held.time:  # a damaged time stamp
                moment = held.time + step
            longest = max(longest, moment - held.time)
            yield held._replace(duration=moment - held.time)
            held = TimedFrame(held.number + 1, frame, moment, step)
        if held is not None:
            yield held if fps else self._last(held, longest)

    def _last(self, frame: TimedFrame, longest: float) -> TimedFrame:
        """The last frame with its duration; ``longest`` is that of the longest other frame."""
        rest = (self.info.duration or 0.0) - frame.time
        # More is missing than one frame where the end of the file is broken.
        if rest > 0 and (frame.number == 0 or rest <= 2 * longest):
            return frame._replace(duration=rest)
        return frame._replace(duration=frame.time / frame.number) if frame.number else frame

    def _decode(self) -> Iterator[decoders.Decoded]:
        """Frames of one size with time stamps, and warnings of what is missing."""
        count, num_scaled = 0, 0
        height, width = self.size
        last: float | None = None
        for frame, stamp in decoders.decode(self.path):
            count += 1
            last = stamp if stamp is not None else last
            if frame.shape[:2] != (height, width):
                num_scaled += 1
                frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            yield frame, stamp
        if count == 0:
            raise DataError(f"{self.path}: no frame can be read from this video.")
        if num_scaled:
            logger.warning(
                "%s: the size changes in mid-video: %d of %d frames were scaled to %d x %d.",
                *(self.path, num_scaled, count, width, height),
            )
        if self.info.is_counted and count < self.num_frames:
            logger.warning(
                "%s: its header says %d frames, %d could be read.",
                *(self.path, self.num_frames, count),
            )
        elif not self.info.is_counted and last is not None and self.info.duration is not None:
            if last < 0.9 * self.info.duration - 1:
                logger.warning(
                    "%s: its header says %.1f seconds, %.1f could be read (%d frames).",
                    *(self.path, self.info.duration, last, count),
                )


class Camera(_Source):
    """Frames of a camera, as they come; ends where the camera stops.

    Args:
        number: Number of the camera, from 0.

    Raises:
        DataError: The camera cannot be opened or gives no frame.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"camera_{number}", [])
        self.is_live = True
        self._capture = cv2.VideoCapture(number)
        is_read, frame = self._capture.read() if self._capture.isOpened() else (False, None)
        if not is_read or frame is None:
            self._capture.release()
            raise DataError(f"--input {number}: camera {number} gives no picture. Is it in use?")
        self._first = frame
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = self.max_fps = fps if math.isfinite(fps) and 0 < fps <= 240 else None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames in pixels."""
        return self._first.shape[0], self._first.shape[1]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read frame after frame."""
        return (frame.picture for frame in self.timed())

    def timed(self, fps: float | None = None) -> Iterator[TimedFrame]:
        """Read frame after frame, with the time at which it came.

        Args:
            fps: Constant rate instead of the time of the clock.
        """
        start, index = time.monotonic(), 0
        frame: np.ndarray | None = self._first
        held: TimedFrame | None = None
        try:
            while frame is not None:
                moment = index / fps if fps else time.monotonic() - start
                picture = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
                if held is not None:
                    yield held._replace(duration=max(moment - held.time, 1e-3))
                    moment = max(moment, held.time + 1e-3)
                held = TimedFrame(index, picture, moment, 1 / (fps or self.fps or DEFAULT_FPS))
                frame = self._capture.read()[1]
                index += 1
            if held is not None:
                yield held
        finally:
            self._capture.release()


def every_nth(
    frames: Iterator[TimedFrame], stride: int = 1, max_frames: int | None = None
) -> Iterator[TimedFrame]:
    """Every n-th frame, each shown until the next one.

    Args:
        frames: Frames with times.
        stride: n >= 1.
        max_frames: Largest number of frames; None: all.

    Raises:
        DataError: A frame cannot be read.
    """
    held: TimedFrame | None = None
    count = 0
    try:
        for frame in frames:
            if held is not None and frame.number % stride:
                held = held._replace(duration=frame.time + frame.duration - held.time)
                continue
            if held is not None:
                yield held
            held = None
            if count == max_frames:
                break
            held = frame
            count += 1
    except DataError:
        if held is not None:
            yield held  # the frames before the broken one are good
        raise
    if held is not None:
        yield held
