"""The objects of an annotated video as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class VideoObjects:
    """Frames and boxes of the objects of a video.

    Attributes:
        tracks: Ids of the N objects, rising.
        boxes: (N, T, 4) float64, x0, y0, x1, y1 in pixels; zeros where an object is absent.
        frames: T frames, (H, W, 3) uint8, RGB.
    """

    tracks: list[int]
    boxes: np.ndarray
    frames: list[np.ndarray]


def video_objects(
    video: Mapping[str, Any], read_frame: Callable[[str], np.ndarray]
) -> VideoObjects:
    """Read the frames of a video and gather its boxes by object.

    Args:
        video: A dict of ``load_ytvis_json``.
        read_frame: Path -> (H, W, 3) uint8, RGB.

    Returns:
        The objects that have a box in some frame; crowds are left out. Without objects no frame is
        read.
    """
    tracks = sorted(
        {item["id"] for frame in video["annotations"] for item in frame if not item["iscrowd"]}
    )
    places = {track: index for index, track in enumerate(tracks)}
    boxes = np.zeros((len(tracks), video["length"], 4))
    for t, frame in enumerate(video["annotations"]):
        for item in frame:
            if item["id"] in places:
                x, y, width, height = item["bbox"]
                boxes[places[item["id"]], t] = x, y, x + width, y + height
    frames = [read_frame(path) for path in video["file_names"]] if tracks else []
    return VideoObjects(tracks, boxes, frames)
