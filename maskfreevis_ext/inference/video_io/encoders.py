"""Encoding of mp4 files by PyAV where it is installed, else by OpenCV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from maskfreevis_ext.inference.video_io.optional import av

_FINENESS = 60000  #: About as many units of time has a second.
_BT709 = 1  # number of the colour space in FFmpeg; players take it for untagged large videos
#: No frame is stored out of order, so that the durations in the file are exact, and few are held.
_H264 = {"bf": "0", "preset": "veryfast", "crf": "20"}


class EncodingError(Exception):
    """An encoder cannot go on; the message says why."""


class Encoder(Protocol):
    """Writes the frames of one video file."""

    def write(self, picture: np.ndarray, time: float) -> None:
        """Add a frame, RGB uint8 [H,W,3] of even sizes, shown from ``time`` (seconds) on."""

    def finish(self, end: float) -> None:
        """Complete the file; the last frame is shown until ``end`` (seconds)."""

    def discard(self) -> None:
        """Stop; the file is of no use."""


def open_encoder(path: Path, size: tuple[int, int], fps: float) -> Encoder:
    """Start an mp4 file.

    Args:
        path: The file; an existing one is replaced.
        size: (H, W), even numbers.
        fps: Frame rate; a file of OpenCV has it exactly, with frames repeated or left out.

    Returns:
        The encoder.

    Raises:
        EncodingError: This video cannot be encoded.
    """
    return OpenCvEncoder(path, size, fps) if av is None else PyAvEncoder(path, size, fps)


class PyAvEncoder:
    """H.264, or MPEG-4 part 2 where FFmpeg was built without it; keeps the time of each frame.

    Args:
        path: The file; an existing one is replaced.
        size: (H, W), even numbers.
        fps: Frame rate; a multiple of it is the unit of time, so that a constant rate is exact.

    Raises:
        EncodingError: This video cannot be encoded.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._held: Any | None = None
        self._last = -1
        self._container = av.open(str(path), "w", format="mp4")
        try:
            rate = Fraction(fps if codec == "libx264" else writable_rate(fps))
            rate = rate.limit_denominator(1001)
            self._ticks = rate.numerator * max(1, _FINENESS // rate.numerator)
            stream = self._container.add_stream(
                codec, rate=rate, options=_H264 if codec == "libx264" else {"qscale": "3"}
            )
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = Fraction(1, self._ticks)
            stream.codec_context.colorspace = _BT709
            stream.codec_context.color_range = 1
            stream.codec_context.open()
        except av.FFmpegError as error:
            raise EncodingError(str(error)) from error
        self._stream = stream

    def write(self, picture: np.ndarray, time: float) -> None:
        """Add a frame, RGB uint8 [H,W,3] of even sizes, shown from ``time`` (seconds) on.

        Raises:
            EncodingError: The frame cannot be written.
        """
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=1
        )
        frame.pts = self._last = max(round(time * self._ticks), self._last + 1)
        frame.time_base = Fraction(1, self._ticks)
        try:
            self._mux(self._stream.encode(frame))
        except av.FFmpegError as error:
            raise EncodingError(error.strerror or str(error)) from error

    def finish(self, end: float) -> None:
        """Complete the file; the last frame is shown until ``end`` (seconds).

        Raises:
            EncodingError: The file cannot be completed.
        """
        try:
            self._mux(self._stream.encode(None))
            if self._held is not None:
                self._held.duration = max(1, round(end * self._ticks) - self._last)
                self._container.mux(self._held)
            self._container.close()
        except av.FFmpegError as error:
            raise EncodingError(error.strerror or str(error)) from error

    def discard(self) -> None:
        """Stop; the file is of no use."""
        self._held = None
        try:
            self._container.close()
        except av.FFmpegError:  # the disk is full, and the file is removed anyhow
            return

    def _mux(self, packets: list[Any]) -> None:
        """Write packets but the last one, whose duration is known later."""
        for packet in packets:
            if self._held is not None:
                self._container.mux(self._held)
            self._held = packet


class OpenCvEncoder:
    """MPEG-4 part 2 of a constant rate; frames are repeated or left out to keep their time.

    Args:
        path: The file; an existing one is replaced.
        size: (H, W), even numbers.
        fps: Frame rate; that of the file is the nearest one that can be written.

    Raises:
        EncodingError: This video cannot be encoded.
    """

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._path, self._fps = path, writable_rate(fps)
        code = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]  # not in the stubs
        self._writer = cv2.VideoWriter(str(path), code, self._fps, (size[1], size[0]))
        self._held: np.ndarray | None = None
        self._count = 0
        if not self._writer.isOpened():
            self._writer.release()
            raise EncodingError("OpenCV cannot encode this video")

    def write(self, picture: np.ndarray, time: float) -> None:
        """Add a frame, RGB uint8 [H,W,3] of even sizes, shown from ``time`` (seconds) on."""
        self._fill(time)
        self._held = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)

    def finish(self, end: float) -> None:
        """Complete the file; the last frame is shown until ``end`` (seconds).

        Raises:
            EncodingError: Frames are missing in the file: OpenCV reports no error of a full disk.
        """
        self._fill(max(end, 1 / self._fps))
        self._writer.release()
        capture = cv2.VideoCapture(str(self._path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if count != self._count:
            raise EncodingError(
                f"expected {self._count} frames, got {count} on disk (is the disk full?)"
            )

    def discard(self) -> None:
        """Stop; the file is of no use."""
        self._writer.release()

    def _fill(self, time: float) -> None:
        """Repeat the frame before until ``time``."""
        while self._held is not None and self._count < round(time * self._fps):
            self._writer.write(self._held)
            self._count += 1


def writable_rate(fps: float) -> float:
    """The nearest frame rate that OpenCV can write: MPEG-4 takes numerators up to 65535.

    Args:
        fps: Frames per second, > 0.
    """
    limit = 65535
    for digits in (3, 2, 1, 0):
        if fps * 10**digits <= limit:
            return max(round(fps, digits), 0.001)
    return float(limit)
