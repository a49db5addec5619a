"""The boxes of a video, and the masks that some of them have already.

N objects, T frames, (H, W) frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.data.ytvis import DatasetDict

GIVEN = "given"
_UNCHANGED = 0.98  # IoU from which a mask is that of an earlier run: formats round masks


@dataclass(frozen=True)
class GivenVideo:
    """Objects of a video without crowds.

    Attributes:
        video: Dict of ``load_ytvis_json``.
        tracks: Ids of the N objects, rising.
        boxes: (N, T, 4) float64, x0, y0, x1, y1 in pixels; zeros where an object is absent.
        masks: Given masks by (object, frame), compressed RLE.
    """

    video: DatasetDict
    tracks: list[int]
    boxes: np.ndarray
    masks: dict[tuple[int, int], dict[str, Any]]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.video["height"], self.video["width"]

    @property
    def is_present(self) -> np.ndarray:
        """(N, T) bool, where an object has a box."""
        return np.all(self.boxes[..., 2:] > self.boxes[..., :2], axis=-1)

    @property
    def is_missing(self) -> np.ndarray:
        """(N, T) bool, where a box has no mask yet."""
        missing = self.is_present
        for place in self.masks:
            missing[place] = False
        return missing


def given_video(
    video: DatasetDict,
    annotations: Mapping[int, Mapping[str, Any]],
    previous: Mapping[int, Mapping[str, Any]] | None = None,
) -> GivenVideo:
    """Gather the boxes of a video by object, and its masks.

    A mask whose ``mask_source`` says that an earlier run made it is not given, nor is one that
    equals that of the earlier run.

    Args:
        video: Dict of ``load_ytvis_json``.
        annotations: Entries of the file by id.
        previous: Entries of the file that an earlier run wrote, by id.

    Returns:
        The objects that have a box in some frame.
    """
    tracks = sorted(
        {item["id"] for frame in video["annotations"] for item in frame if not item["iscrowd"]}
    )
    places = {track: index for index, track in enumerate(tracks)}
    boxes = np.zeros((len(tracks), video["length"], 4))
    masks: dict[tuple[int, int], dict[str, Any]] = {}
    for t, frame in enumerate(video["annotations"]):
        for item in frame:
            index = places.get(item["id"]) if not item["iscrowd"] else None
            if index is None:
                continue
            x, y, width, height = item["bbox"]
            boxes[index, t] = x, y, x + width, y + height
            mask = item.get("segmentation")
            if mask is not None and _is_given(item["id"], t, mask, annotations, previous or {}):
                masks[index, t] = mask
    return GivenVideo(video, tracks, boxes, masks)


def mask_source(annotation: Mapping[str, Any], frame: int) -> str:
    """Who made a mask of an annotation: "given" where nothing is said."""
    sources = annotation.get("mask_sources")
    if isinstance(sources, Sequence) and not isinstance(sources, str) and frame < len(sources):
        return str(sources[frame] or GIVEN)
    source = annotation.get("mask_source", GIVEN)
    return source if isinstance(source, str) else GIVEN


def _is_given(
    track: int,
    frame: int,
    mask: Mapping[str, Any],
    annotations: Mapping[int, Mapping[str, Any]],
    previous: Mapping[int, Mapping[str, Any]],
) -> bool:
    if mask_source(annotations.get(track, {}), frame) != GIVEN:
        return False
    before = previous.get(track, {})
    old = (before.get("segmentations") or {}) and before["segmentations"][frame : frame + 1]
    if not old or old[0] is None or mask_source(before, frame) == GIVEN:
        return True
    if list(old[0]["size"]) != list(mask["size"]):
        return True
    return float(mask_util.iou([mask], [old[0]], [0])[0, 0]) < _UNCHANGED
