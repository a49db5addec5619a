"""Small video files of all kinds, made by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def make_frames(count: int = 7, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Smooth RGB pictures; red grows from left to right, blue with time."""
    y, x = np.mgrid[0:height, 0:width]
    return [
        np.stack(
            [x * 255 / width, y * 100 / height, np.full_like(x, 30 * t % 250, dtype=float)], -1
        ).astype(np.uint8)
        for t in range(count)
    ]


def write_clip(
    path: Path,
    times: Sequence[float],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    frames: Sequence[np.ndarray] | None = None,
    ticks: int = 1000,
) -> Path:
    """A video whose frames are shown at these times (seconds)."""
    frames = make_frames(len(times)) if frames is None else frames
    options = {"bf": "0"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, ticks)
        for time, picture in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = round(time * ticks), Fraction(1, ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_motion_jpeg(path: Path, frames: Sequence[np.ndarray], fps: int = 10) -> Path:
    """An AVI or Matroska file of JPEG pictures, which may differ in size."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p"
        for number, picture in enumerate(frames):
            data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
            packet = av.Packet(data)
            packet.stream = stream
            packet.time_base = Fraction(1, fps)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    return path


def turn(path: Path, quarters: int) -> Path:
    """Tell players of an mp4 file to turn it clockwise by some quarters."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # the matrix: a b u c d v x y w, 32 bits each
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    one = 1 << 16
    matrix = [cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30]
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    return path


def shown(path: Path) -> list[tuple[float, float]]:
    """Time and duration (seconds) of each frame of a video file, as its container has them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        base = float(stream.time_base)
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        return [(packet.pts * base, packet.duration * base) for packet in packets]
