"""Video IoU of each object of a ground truth: how good the masks of given boxes are.

Shape letters: T frames, D predicted tracks and G objects of a video.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from pycocotools import mask as mask_util
from scipy.optimize import linear_sum_assignment

from maskfreevis_ext.data.boxes import overlap_and_union
from maskfreevis_ext.data.json_fields import MAX_ID, list_of, unique_id
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.evaluation.ground_truth import (
    GroundTruth,
    TrueTrack,
    Video,
    read_detections,
    read_ground_truth,
    read_track,
)
from maskfreevis_ext.evaluation.overlap import video_iou
from maskfreevis_ext.files import atomic_write
from maskfreevis_ext.rle import is_finite_number
from maskfreevis_ext.tracks import Track, track_frames

#: Least IoU of the boxes, over the video, of an object and a track that is taken for it.
MIN_BOX_IOU = 0.5
#: Column of the video IoU.
IOU = "IoU"


@dataclass(frozen=True)
class ObjectScores:
    """Numbers of one object.

    Attributes:
        video: Name of its video.
        object_id: Id of its annotation.
        objects_in_video: Number of objects that its video has.
        values: Column of the table -> number, the same columns for all objects.
        found_by: "id" or "box": how its masks were found; "" where there are none.
    """

    video: str
    object_id: int
    objects_in_video: int
    values: Mapping[str, float]
    found_by: str = ""


@dataclass(frozen=True)
class _Given:
    """Masks that stand in a file for an object, with boxes (T, 4), x0, y0, x1, y1, or zeros."""

    video_id: int
    track: Track
    boxes: np.ndarray


def score_objects(
    ground_truth: Mapping[str, Any],
    predicted: Any,
    *,
    ground_truth_name: str = "ground truth",
    predicted_name: str = "results",
) -> list[ObjectScores]:
    """Video IoU of the masks that a file has for each object of a ground truth.

    The masks of an object are those of the annotation with its id in the same video. Where there
    is none, objects and tracks that are left over are matched one to one by their boxes (IoU over
    the video of at least ``MIN_BOX_IOU``), classes aside. An object without masks has IoU 0.
    Crowds are left out.

    Args:
        ground_truth: Content of a YTVIS annotation file with masks.
        predicted: Content of an annotation file, such as ``tools/boxes_to_masks.py`` writes it, or
            of a ``results.json``.
        ground_truth_name: File name for messages.
        predicted_name: File name for messages.

    Returns:
        One entry for each object, in the order of the ground truth.

    Raises:
        DataError: Something in either cannot be used, or there is no object to score.
    """
    truth = read_ground_truth(ground_truth, ground_truth_name)
    objects = [each for each in truth.objects if not each.is_crowd]
    if not objects:
        raise DataError(f"{ground_truth_name}: expected objects with masks, got none.")
    given = _read_predicted(predicted, truth, predicted_name)
    bboxes = {
        entry.get("id"): entry.get("bboxes") for entry in ground_truth.get("annotations") or []
    }
    names = _video_names(ground_truth)
    pairs: dict[int, tuple[str, Track]] = {}
    for each in objects:
        own = given.get(each.annotation_id)
        if own is not None and own.video_id == each.video_id:
            pairs[each.annotation_id] = ("id", own.track)
    counts: dict[int, int] = {}
    for each in objects:
        counts[each.video_id] = counts.get(each.video_id, 0) + 1
    by_id = set(pairs)
    for video_id in counts:
        rest = [x for x in objects if x.video_id == video_id and x.annotation_id not in by_id]
        free = [x for key, x in given.items() if x.video_id == video_id and key not in by_id]
        pairs.update(_match_by_box(rest, free, bboxes, truth.videos[video_id]))
    scores = []
    for each in objects:
        found_by, track = pairs.get(each.annotation_id, ("", None))
        iou = video_iou(track, each.track) if track is not None else 0.0
        name = names[each.video_id]
        count = counts[each.video_id]
        scores.append(ObjectScores(name, each.annotation_id, count, {IOU: iou}, found_by))
    return scores


def _video_names(content: Mapping[str, Any]) -> dict[int, str]:
    """Folder of the frames of each video, or its id."""
    names = {}
    for video in content["videos"]:
        files = video.get("file_names")
        folder = PurePath(str(files[0])).parent.name if isinstance(files, list) and files else ""
        names[video["id"]] = folder or str(video["id"])
    return names


def _read_predicted(predicted: Any, truth: GroundTruth, name: str) -> dict[int, _Given]:
    """Masks by annotation id; those of a results file, which have none, by negative numbers."""
    if isinstance(predicted, list):
        tracks = read_detections(predicted, truth, name)
        return {
            -1 - index: _Given(
                each.video_id, each.track, _mask_boxes(each.track, truth.videos[each.video_id])
            )
            for index, each in enumerate(tracks)
        }
    if not isinstance(predicted, Mapping):
        raise DataError(f"{name}: expected an annotation file or a list of results.")
    given: dict[int, _Given] = {}
    seen: dict[int, None] = {}
    for entry in list_of(name, predicted, "annotations"):
        annotation_id = unique_id(entry, seen)
        seen[annotation_id] = None
        video_id = entry.integer("video_id", 0, MAX_ID)
        if video_id not in truth.videos or entry.content.get("segmentations") is None:
            continue
        video = truth.videos[video_id]
        track = read_track(entry, video_id, video)
        boxes = _boxes(entry.content.get("bboxes"), track, video)
        given[annotation_id] = _Given(video_id, track, boxes)
    return given


def _boxes(bboxes: Any, track: Track, video: Video) -> np.ndarray:
    """Boxes of a file where they can be used, otherwise those of the masks, (T, 4)."""
    if not isinstance(bboxes, list) or len(bboxes) != video.length:
        return _mask_boxes(track, video)
    boxes = np.zeros((video.length, 4))
    for t, box in enumerate(bboxes):
        if isinstance(box, list) and len(box) == 4 and all(map(is_finite_number, box)):
            x, y, width, height = box
            boxes[t] = x, y, x + width, y + height
    return boxes


def _mask_boxes(track: Track, video: Video) -> np.ndarray:
    """Tight boxes of the masks, (T, 4); zeros for an empty mask."""
    boxes = mask_util.toBbox(track_frames(track, *video.size))
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _match_by_box(
    objects: Sequence[TrueTrack],
    given: Sequence[_Given],
    bboxes: Mapping[int, Any],
    video: Video,
) -> dict[int, tuple[str, Track]]:
    """Tracks for objects of a video by the IoU of their boxes."""
    if not objects or not given:
        return {}
    wanted = np.stack([_boxes(bboxes.get(x.annotation_id), x.track, video) for x in objects])
    overlap, union = overlap_and_union(np.stack([x.boxes for x in given])[:, None], wanted[None])
    ious = overlap.sum(-1) / np.maximum(union.sum(-1), 1e-9)
    ious[ious < MIN_BOX_IOU] = 0
    return {
        objects[column].annotation_id: ("box", given[row].track)
        for row, column in zip(*linear_sum_assignment(ious, maximize=True), strict=True)
        if ious[row, column]
    }


def summarize_objects(
    scores: Sequence[ObjectScores],
) -> list[tuple[str, int, dict[str, float]]]:
    """Means over all objects, over those alone in their video, and over the others.

    Args:
        scores: The objects.

    Returns:
        (name of the group, number of objects, column -> mean), without empty groups.
    """
    groups = {
        "all objects": list(scores),
        "one-object videos": [each for each in scores if each.objects_in_video == 1],
        "videos of several objects": [each for each in scores if each.objects_in_video > 1],
    }
    return [
        (
            name,
            len(group),
            {c: float(np.mean([x.values[c] for x in group])) for c in _columns(group)},
        )
        for name, group in groups.items()
        if group
    ]


def _columns(scores: Sequence[ObjectScores]) -> list[str]:
    return list(scores[0].values)


def objects_markdown(scores: Sequence[ObjectScores]) -> str:
    """Markdown table of all objects and of the means.

    Args:
        scores: The objects, at least one.
    """
    columns = _columns(scores)
    lines = [
        f"| video | object | {' | '.join(columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for each in scores:
        figures = " | ".join(f"{each.values[column]:.3f}" for column in columns)
        lines.append(f"| {each.video} | {each.object_id} | {figures} |")
    for name, count, means in summarize_objects(scores):
        figures = " | ".join(f"**{means[column]:.3f}**" for column in columns)
        lines.append(f"| mean of {name} | {count} | {figures} |")
    return "\n".join(lines) + "\n"


def objects_csv(scores: Sequence[ObjectScores]) -> str:
    """CSV table of all objects.

    Args:
        scores: The objects, at least one.
    """
    columns = _columns(scores)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "object", *columns])
    for each in scores:
        figures = [f"{each.values[column]:.4f}" for column in columns]
        writer.writerow([each.video, each.object_id, *figures])
    return text.getvalue()


def write_objects(scores: Sequence[ObjectScores], path: str) -> None:
    """Write the table, as Markdown where the name ends in ``.md`` and as CSV otherwise.

    Args:
        scores: The objects, at least one.
        path: The file.

    Raises:
        DataError: The file cannot be written.
    """
    text = objects_markdown(scores) if path.endswith(".md") else objects_csv(scores)
    try:
        with atomic_write(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error
