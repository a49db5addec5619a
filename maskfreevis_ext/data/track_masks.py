"""Masks of tracks: checked together, as the cost of a check is in its calls; and decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.polygons import segmentation_to_rle
from maskfreevis_ext.rle import MalformedRunsError, decode_counts, decode_rle

#: RLE or None, its area in pixels, number of polygons dropped; as of ``segmentation_to_rle``.
CheckedMask = tuple[dict[str, Any] | None, int, int]


def check_masks(
    segmentations: Sequence[Any], height: int, width: int, where: Callable[[int], str]
) -> list[CheckedMask]:
    """``segmentation_to_rle`` of every mask of a track; compressed RLEs are decoded in one go.

    Args:
        segmentations: One a frame: RLE, list of polygons, or None; unchecked.
        height: Of the frame, pixels.
        width: Of the frame, pixels.
        where: Start of an error message about frame t.

    Returns:
        One result a frame.

    Raises:
        DataError: A mask is malformed.
    """
    found = _plain_masks(segmentations, height, width)
    return [
        found[t] if t in found else segmentation_to_rle(mask, height, width, where(t))
        for t, mask in enumerate(segmentations)
    ]


def _plain_masks(segmentations: Sequence[Any], height: int, width: int) -> dict[int, CheckedMask]:
    """Masks by frame that are compressed RLEs of the right size without empty runs."""
    frames = [t for t, mask in enumerate(segmentations) if _is_plain(mask, height, width)]
    counts = [segmentations[t]["counts"] for t in frames]
    texts = [data.encode("ascii") if isinstance(data, str) else data for data in counts]
    if not texts:
        return {}
    try:
        runs = decode_counts(texts, height * width)
    except MalformedRunsError:
        return {}  # one by one, the message says which and why
    is_empty = runs.lengths == 0
    firsts = np.cumsum(runs.sizes) - runs.sizes
    is_empty[firsts] = False  # a mask may begin with an object
    has_empty = np.add.reduceat(is_empty, firsts) > 0
    areas = runs.areas()
    return {
        t: ({"size": [height, width], "counts": texts[i]}, int(areas[i]), 0)
        for i, t in enumerate(frames)
        if not has_empty[i]
    }


def _is_plain(mask: Any, height: int, width: int) -> bool:
    if not isinstance(mask, dict) or mask.get("size") != [height, width]:
        return False
    if any(type(side) is not int for side in mask["size"]):
        return False
    counts = mask.get("counts")
    return isinstance(counts, bytes) or (isinstance(counts, str) and counts.isascii())


def object_masks(video: dict[str, Any]) -> torch.Tensor:
    """Decode the masks of a video's objects, without crowds.

    Args:
        video: A dict of ``load_ytvis_json``.

    Returns:
        (G, T, H, W) bool of G objects by ascending track id; False where an object is absent.

    Raises:
        DataError: An object has only a box.
    """
    tracks = sorted(
        {item["id"] for frame in video["annotations"] for item in frame if not item["iscrowd"]}
    )
    masks = np.zeros((len(tracks), video["length"], video["height"], video["width"]), dtype=bool)
    for t, frame in enumerate(video["annotations"]):
        for item in frame:
            if item["iscrowd"]:
                continue
            if "segmentation" not in item:
                raise DataError(
                    f"video {video['video_id']}, frame {t}, annotation {item['id']}: a true IoU "
                    "needs a mask, and there is only a box. Name a data set with 'segmentations'."
                )
            masks[tracks.index(item["id"]), t] = decode_rle(item["segmentation"])
    return torch.from_numpy(masks)
