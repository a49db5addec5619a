"""Decoding of video files by PyAV where it is installed, else by OpenCV.

A decoder gives pictures, RGB uint8 [H,W,3] turned upright, with their time stamps in seconds, which
may be None, repeat or go back where the file is damaged.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskfreevis_ext.inference.video_io.optional import av

_UTF8_MARK = b"\xef\xbb\xbf"
_SAMPLES = 60  #: Time stamps that are compared with the frame rate of the header.
_NO_PACKET: Any = object()
_MAX_FPS = 240.0  #: A header may name the units of its time stamps, often 1000 per second.
_MAX_VARIABLE_FPS = 60.0  #: Frames that follow each other more closely are rare exceptions.

logger = logging.getLogger(__name__)

Decoded = tuple[np.ndarray, float | None]


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself, where its time stamps do not say otherwise.

    Attributes:
        size: (H, W) of the upright frames in pixels.
        fps: Mean frame rate, or None if unknown.
        max_fps: Rate of the frames that follow each other most closely; equal to ``fps`` where the
            rate is constant.
        num_frames: Number of frames, or 0 if unknown.
        is_counted: Whether ``num_frames`` was counted when the file was written.
        duration: In seconds, or None if unknown.
    """

    size: tuple[int, int]
    fps: float | None
    max_fps: float | None
    num_frames: int
    is_counted: bool
    duration: float | None


def is_text(path: Path) -> bool:
    """Whether a file begins like text, or with the tag that FFmpeg skips before it.

    FFmpeg takes playlists and scripts for videos, whatever their names are, and opens the files
    and addresses in them.

    Args:
        path: The file.
    """
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith((b"RIFF", b"GIF8", b"YUV4MPEG2")):
        return False
    is_printable = all(32 <= byte < 127 or byte in b"\t\n\r" for byte in start.lstrip(_UTF8_MARK))
    return start.startswith(b"ID3") or (bool(start) and is_printable)


def probe(path: Path) -> VideoInfo | None:
    """Read the header, the first frame and the first time stamps of a video file.

    Args:
        path: The file.

    Returns:
        What the file says; None where no frame can be read.
    """
    return _probe_opencv(path) if av is None else _probe_pyav(path)


def decode(path: Path) -> Iterator[Decoded]:
    """Decode a video file; damaged parts are left out, with a warning.

    Args:
        path: The file.

    Yields:
        Frame after frame, with its time stamp.
    """
    return _decode_opencv(path) if av is None else _decode_pyav(path)


def believed_rates(
    header: float | None, stamps: Sequence[float]
) -> tuple[float | None, float | None]:
    """The mean and the highest frame rate, by time stamps rather than by the header.

    Args:
        header: Frame rate of the header, or None.
        stamps: Time stamps of the first frames, seconds, in any order.

    Returns:
        Frames per second; the header's where the time stamps agree with it, None where nothing is
        known.
    """
    is_likely = header is not None and math.isfinite(header) and 0 < header <= _MAX_FPS
    gaps = np.diff(sorted(set(stamps)))
    if not len(gaps):
        return (header, header) if is_likely else (None, None)
    mean, highest = 1 / float(gaps.mean()), 1 / float(gaps.min())
    # Time stamps are often whole milliseconds.
    is_constant = bool((np.abs(gaps - np.median(gaps)) <= 0.002 + 0.01 * np.median(gaps)).all())
    if is_constant:
        is_header = is_likely and header is not None and abs(header / mean - 1) < 0.1
        rate = header if is_header else mean
        return rate, rate
    return mean, min(highest, _MAX_VARIABLE_FPS)


def _probe_pyav(path: Path) -> VideoInfo | None:
    stamps: list[float] = []
    first = None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return None
            stream = container.streams.video[0]
            for packet in container.demux(stream):
                if packet.pts is not None:
                    stamps.append(float(packet.pts * packet.time_base))
                if first is None:
                    first = next(iter(packet.decode()), None)
                if first is not None and len(stamps) >= _SAMPLES:
                    break
            header = None if stream.average_rate is None else float(stream.average_rate)
            num_frames, duration = stream.frames, _duration(container, stream)
    except av.FFmpegError:
        if first is None:
            return None
    if first is None:
        return None
    size = _upright(first).shape[:2]
    fps, max_fps = believed_rates(header, stamps)
    is_counted = num_frames > 0
    if not is_counted and duration is not None and fps is not None:
        num_frames = round(duration * fps)
    return VideoInfo((size[0], size[1]), fps, max_fps, num_frames, is_counted, duration)


def _duration(container: Any, stream: Any) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _decode_pyav(path: Path) -> Iterator[Decoded]:
    num_damaged = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        packets = itertools.chain(container.demux(stream), [None])
        while True:
            try:
                packet = next(packets, _NO_PACKET)
                if packet is _NO_PACKET:
                    break
                # The last packet, None, fetches what the decoder holds after an early end.
                frames = stream.codec_context.decode(None) if packet is None else packet.decode()
            except (av.FFmpegError, EOFError):
                num_damaged += packet is not None
                continue
            for frame in frames:
                yield _upright(frame), None if frame.time is None else float(frame.time)
    if num_damaged:
        logger.warning("%s: %d damaged parts could not be decoded.", path, num_damaged)


def _upright(frame: Any) -> np.ndarray:
    picture = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarters)) if quarters else picture


def _probe_opencv(path: Path) -> VideoInfo | None:
    capture = cv2.VideoCapture(str(path))
    try:
        # OpenCV opens a truncated file without an error, and then reads no frame.
        is_read, frame = capture.read() if capture.isOpened() else (False, None)
        if not is_read or frame is None:
            return None
        stamps = [_stamp(capture)]
        while len(stamps) < _SAMPLES and capture.grab():
            stamps.append(_stamp(capture))
        header, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    finally:
        capture.release()
    fps, max_fps = believed_rates(header, [stamp for stamp in stamps if stamp is not None])
    duration = count / header if 0 < count < math.inf and 0 < header < math.inf else None
    is_counted = duration is not None and fps == header
    if len(stamps) < _SAMPLES:
        num_frames = len(stamps) if not is_counted else int(count)
    else:
        num_frames = round(duration * fps) if duration is not None and fps is not None else 0
    size = frame.shape[:2]
    return VideoInfo((size[0], size[1]), fps, max_fps, num_frames, is_counted, duration)


def _decode_opencv(path: Path) -> Iterator[Decoded]:
    capture = cv2.VideoCapture(str(path))
    try:
        while True:
            is_read, frame = capture.read()
            if not is_read:
                break
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), _stamp(capture)
    finally:
        capture.release()


def _stamp(capture: cv2.VideoCapture) -> float | None:
    milliseconds = capture.get(cv2.CAP_PROP_POS_MSEC)
    return milliseconds / 1000 if math.isfinite(milliseconds) and milliseconds >= 0 else None
