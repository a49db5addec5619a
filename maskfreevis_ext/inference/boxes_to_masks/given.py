"""The boxes of a video, and the masks that some of them have already.

N objects, T frames, (H, W) frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.data.boxes import has_area
from maskfreevis_ext.data.ytvis import DatasetDict

GIVEN = "given"
#: Compressed RLEs of a video by frame.
FrameMasks = dict[int, list[dict[str, Any]]]

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
        return has_area(self.boxes)

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
    previous: FrameMasks | None = None,
) -> GivenVideo:
    """Gather the boxes of a video by object, and its masks.

    A mask whose ``mask_source`` says that an earlier run made it is not given, nor is one that
    an earlier run made in this frame.

    Args:
        video: Dict of ``load_ytvis_json``.
        annotations: Entries of the file by id.
        previous: Masks that an earlier run made of this video, of ``made_masks``.

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
            if mask is None or mask_source(annotations.get(item["id"], {}), t) != GIVEN:
                continue
            if not _is_among(mask, (previous or {}).get(t, [])):
                masks[index, t] = mask
    return GivenVideo(video, tracks, boxes, masks)


def mask_source(annotation: Mapping[str, Any], frame: int) -> str:
    """Who made a mask of an annotation: "given" where nothing is said."""
    sources = annotation.get("mask_sources")
    if isinstance(sources, Sequence) and not isinstance(sources, str) and frame < len(sources):
        return str(sources[frame] or GIVEN)
    source = annotation.get("mask_source", GIVEN)
    return source if isinstance(source, str) else GIVEN


def made_masks(videos: Sequence[DatasetDict], content: Mapping[str, Any]) -> list[FrameMasks]:
    """The masks that an earlier run made, of each video.

    Args:
        videos: Dicts of ``load_ytvis_json``.
        content: The file's object.
    """
    entries = {entry["id"]: entry for entry in content.get("annotations") or []}
    result: list[FrameMasks] = []
    for video in videos:
        masks: FrameMasks = {}
        for t, frame in enumerate(video["annotations"]):
            for item in frame:
                if "segmentation" in item and mask_source(entries[item["id"]], t) != GIVEN:
                    masks.setdefault(t, []).append(item["segmentation"])
        result.append(masks)
    return result


def same_video(video: DatasetDict, others: Sequence[DatasetDict]) -> int | None:
    """Which of other videos has the same frames, by the folder of their names and their number.

    Formats change ids and endings, so these do not count.

    Args:
        video: Dict of ``load_ytvis_json``.
        others: Further dicts.

    Returns:
        Its place; None if there is none, or several.
    """
    places = [place for place, other in enumerate(others) if other["length"] == video["length"]]
    if len(others) > 1:
        name = _folder(video)
        places = [place for place in places if _folder(others[place]) == name]
    return places[0] if len(places) == 1 else None


def _folder(video: DatasetDict) -> str:
    return Path(video["file_names"][0]).parent.name


def _is_among(mask: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a mask equals one of others, but for what formats round."""
    same = [other for other in others if list(other["size"]) == list(mask["size"])]
    if not same:
        return False
    return bool(mask_util.iou([mask], same, [0] * len(same)).max() >= _UNCHANGED)
