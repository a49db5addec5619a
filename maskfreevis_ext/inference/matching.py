"""Matches predicted tracks with annotated objects, to show in pictures which ones are right.

Shape letters: T frames, D predicted tracks, G annotated objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from maskfreevis_ext.data.boxes import overlap_and_union, tight_box
from maskfreevis_ext.tracks import Prediction, decode_track, track_iou

#: Least IoU of a matched prediction and object.
MIN_IOU = 0.5

ObjectFrames = dict[int, list[Mapping[str, Any] | None]]


def objects_by_id(video: Mapping[str, Any]) -> ObjectFrames:
    """By object id, the annotation in each frame, None where it is absent; without crowds.

    Args:
        video: Dataset dict of ``load_ytvis_json``.
    """
    objects: ObjectFrames = {}
    for t, frame in enumerate(video["annotations"]):
        for annotation in frame:
            if not annotation["iscrowd"]:
                absent: list[Mapping[str, Any] | None] = [None] * video["length"]
                objects.setdefault(annotation["id"], absent)[t] = annotation
    return objects


class Match(NamedTuple):
    """A predicted track and the object that it shows.

    Attributes:
        number: Number of the track.
        object_id: Id of the object.
        iou: IoU over the video.
    """

    number: int
    object_id: int
    iou: float


def match_objects(prediction: Prediction, video: Mapping[str, Any]) -> dict[int, int]:
    """Object id by track number, for the pairs of ``find_matches``.

    Args:
        prediction: The tracks.
        video: Dataset dict of ``load_ytvis_json``.

    Raises:
        DataError: A mask is malformed.
    """
    return {match.number: match.object_id for match in find_matches(prediction, video)}


def find_matches(prediction: Prediction, video: Mapping[str, Any]) -> list[Match]:
    """Match predicted tracks and objects one to one, so that the sum of their IoUs is largest.

    The IoU is the one of YouTube-VIS: intersections summed over all frames divided by unions summed
    over all frames, of masks, or of boxes where an object has no masks. Classes are ignored.

    Args:
        prediction: The tracks.
        video: Dataset dict of ``load_ytvis_json``.

    Returns:
        Pairs with an IoU of at least ``MIN_IOU``.

    Raises:
        DataError: A mask is malformed.
    """
    objects = objects_by_id(video)
    ious = _mask_ious(prediction, objects, video)
    is_boxed = [
        any(item and "segmentation" not in item for item in frames) for frames in objects.values()
    ]
    if any(is_boxed):
        ious[:, is_boxed] = _box_ious(prediction, objects, video["length"])[:, is_boxed]
    ious[ious < MIN_IOU] = 0
    ids = list(objects)
    pairs = zip(*linear_sum_assignment(ious, maximize=True), strict=True)
    return [
        Match(prediction.numbers[row], ids[column], float(ious[row, column]))
        for row, column in pairs
        if ious[row, column]
    ]


def _mask_ious(
    prediction: Prediction, objects: ObjectFrames, video: Mapping[str, Any]
) -> np.ndarray:
    """IoU of the masks over all frames, (D, G)."""
    where, size = f"video {video['video_id']}", (video["height"], video["width"])
    predicted = [entry["segmentations"] for entry in prediction.results(video["video_id"])]
    annotated = [[item and item.get("segmentation") for item in each] for each in objects.values()]
    return track_iou(
        [decode_track(masks, *size, where) for masks in predicted],
        [decode_track(masks, *size, where) for masks in annotated],
    )


def _box_ious(prediction: Prediction, objects: ObjectFrames, num_frames: int) -> np.ndarray:
    """IoU of the boxes over all frames, (D, G)."""
    frames = range(num_frames)
    predicted = _stack(
        [[tight_box(np.asarray(masks[t])) for t in frames] for masks in prediction.masks],
        num_frames,
    )
    annotated = _stack(
        [[_corners(item["bbox"]) if item else None for item in each] for each in objects.values()],
        num_frames,
    )
    overlap, union = overlap_and_union(predicted[:, None], annotated[None])
    return overlap.sum(-1) / np.maximum(union.sum(-1), 1e-9)


def _stack(boxes: Sequence[Sequence[Sequence[float] | None]], num_frames: int) -> np.ndarray:
    """Boxes as an array (N, T, 4), zeros where there is no box."""
    filled = [[box or (0, 0, 0, 0) for box in each] for each in boxes]
    return np.array(filled, dtype=np.float64).reshape(len(boxes), num_frames, 4)


def _corners(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = bbox
    return x, y, x + width, y + height
