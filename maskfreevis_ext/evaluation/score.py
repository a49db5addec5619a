"""YouTube-VIS average precision of a submission.

The IoU of two tracks is the sum of their intersections over all frames divided by the sum of their
unions. This equals the IoU of two images made of the frames side by side, so pycocotools gets each
video as one image of H x (T*W); its matching and accumulation are those of the official evaluator.
Two things differ from COCO, as in the official evaluator: area ranges apply to the mean area per
frame, and the IoU with an iscrowd track is an ordinary IoU. Shape letters: D detections and G
objects of one video and class.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.rle import MAX_SIDE, is_finite_number
from maskfreevis_ext.tracks import Track, decode_track, encode_track, track_iou

#: Names of the metrics, in the order of display.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")

_MAX_DETECTIONS = (1, 10, 100)
_AREA_NAMES = ("all", "small", "medium", "large")
_COCO_PIXELS = 2**31  # pycocotools counts pixels in 32 bits


@dataclass(frozen=True)
class Scores:
    """Metrics of one evaluation, in percent; NaN if there is no object to measure.

    Attributes:
        metrics: Values by the names of ``METRICS``.
        per_class: (class name, AP), one for each category of the ground truth, sorted by category
            id.
    """

    metrics: dict[str, float]
    per_class: list[tuple[str, float]]


@dataclass(frozen=True)
class Video:
    """Size of a video: height and width in pixels, and length in frames."""

    height: int
    width: int
    length: int


def read_results(path: str | os.PathLike[str]) -> list[Any]:
    """Read a results file; its entries are checked later, by ``score_results``.

    Raises:
        DataError: The file cannot be opened, or is not a JSON list; names the file and the place.
    """
    try:
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON file: {error}.") from error
    if not isinstance(results, list):
        raise DataError(f"{path}: expected a list of results, got {_kind(results)}.")
    return results


def has_annotations(ground_truth: object) -> bool:
    """Whether the ground truth has ``annotations``, which public test sets withhold."""
    return isinstance(ground_truth, Mapping) and ground_truth.get("annotations") is not None


def is_box_only(ground_truth: Mapping[str, Any]) -> bool:
    """Whether the ground truth has tracks and none of them has a mask."""
    annotations = ground_truth.get("annotations") or []
    return bool(annotations) and not any(
        isinstance(annotation, Mapping) and annotation.get("segmentations")
        for annotation in annotations
    )


def score_results(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    ground_truth_name: str = "ground truth",
    results_name: str = "results",
) -> Scores:
    """Compare results with the ground truth as the official YouTube-VIS evaluator does.

    Yang et al., "Video Instance Segmentation", ICCV 2019, section 3.2 (arXiv:1905.04804). IoU
    thresholds 0.50 to 0.95 in steps of 0.05; at most 100 results per video and class; small < 128^2
    <= medium < 256^2 <= large, in pixels of the mean area over the frames where the track has any.

    Args:
        ground_truth: Content of a YTVIS annotation file with masks. ``areas`` and ``iscrowd`` may
            be absent.
        results: Content of a ``results.json``: dicts with video_id, category_id, score and
            segmentations (one RLE or null per frame). May be empty.
        ground_truth_name: File name for messages.
        results_name: File name for messages.

    Returns:
        The numbers.

    Raises:
        DataError: An entry of either is malformed, or they do not fit; names entry and field.
    """
    videos, categories = read_header(ground_truth, ground_truth_name)
    objects = read_objects(ground_truth, videos, categories, ground_truth_name)
    detections = read_detections(results, videos, categories, results_name)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _TrackEval(
            _make_coco(videos, categories, objects),
            _make_coco(videos, categories, detections),
            videos,
        )
        evaluation.evaluate()
        evaluation.accumulate()
    return _summarize(evaluation, categories)


class _TrackEval(COCOeval):
    """COCOeval on annotations with a ``track`` (``tracks.Track``) instead of a mask."""

    def __init__(self, objects: COCO, detections: COCO, videos: dict[int, Video]) -> None:
        # with "bbox" pycocotools does not convert the annotations
        super().__init__(objects, detections, iouType="bbox")
        self._videos = videos
        self.params.maxDets = list(_MAX_DETECTIONS)
        self.params.areaRngLbl = list(_AREA_NAMES)
        self.params.areaRng = [[0, 1e10], [0, 128**2], [128**2, 256**2], [256**2, 1e10]]

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list:
        """IoU [D, G] for a video and class, D sorted by score; overrides pycocotools' method."""
        objects = [annotation["track"] for annotation in self._gts[imgId, catId]]
        found = self._dts[imgId, catId]
        if not objects or not found:
            return []
        order = np.argsort([-annotation["score"] for annotation in found], kind="mergesort")
        order = order[: self.params.maxDets[-1]]
        return iou_of_tracks(
            [found[index]["track"] for index in order], objects, self._videos[imgId]
        )


def iou_of_tracks(detections: list[Track], objects: list[Track], video: Video) -> np.ndarray:
    """Video IoU of D tracks with G objects of a video, float64 (D, G)."""
    if video.height * video.width * video.length >= _COCO_PIXELS:
        return track_iou(detections, objects)
    size = (video.length, video.height, video.width)
    # No crowd flags: with them pycocotools divides by the area of the detection, unlike YTVIS.
    return coco_mask.iou(
        [encode_track(track, *size) for track in detections],
        [encode_track(track, *size) for track in objects],
        [0] * len(objects),
    )


def _make_coco(
    videos: dict[int, Video], categories: dict[int, str], annotations: list[dict]
) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": video_id} for video_id in videos],
        "categories": [{"id": category_id} for category_id in categories],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _summarize(evaluation: COCOeval, categories: dict[int, str]) -> Scores:
    # (10 thresholds, 101 recalls, classes, areas, max detections), and the same without recalls
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    values = [
        _mean(precision[:, :, :, 0, -1]),
        _mean(precision[0, :, :, 0, -1]),
        _mean(precision[5, :, :, 0, -1]),
        *(_mean(precision[:, :, :, area, -1]) for area in (1, 2, 3)),
        *(_mean(recall[:, :, 0, place]) for place in range(len(_MAX_DETECTIONS))),
    ]
    return Scores(
        metrics=dict(zip(METRICS, values, strict=True)),
        per_class=[
            (categories[category_id], _mean(precision[:, :, index, 0, -1]))
            for index, category_id in enumerate(evaluation.params.catIds)
        ],
    )


def _mean(values: np.ndarray) -> float:
    """Mean of the defined entries in percent; pycocotools marks undefined ones with -1."""
    defined = values[values > -1]
    return 100.0 * float(defined.mean()) if defined.size else math.nan


def read_header(ground_truth: object, name: str) -> tuple[dict[int, Video], dict[int, str]]:
    """Videos by id and category names by id of a ground truth.

    Raises:
        DataError: A field is missing or cannot be used.
    """
    if not isinstance(ground_truth, Mapping):
        raise DataError(
            f"{name}: expected a YTVIS annotation file (an object), got {_kind(ground_truth)}."
        )
    for field in ("videos", "categories", "annotations"):
        if not isinstance(ground_truth.get(field), list):
            hint = (
                " It is withheld in public validation and test sets."
                if field == "annotations"
                else ""
            )
            raise DataError(
                f"{name}: expected a list {field!r}, got {_kind(ground_truth.get(field))}.{hint}"
            )

    videos: dict[int, Video] = {}
    for index, video in enumerate(ground_truth["videos"]):
        where = f"{name}: videos[{index}]"
        video_id = _read_new_id(video, where, videos)
        where += f" (id {video_id})"
        names = video.get("file_names")
        videos[video_id] = Video(
            _read_number(video.get("height"), MAX_SIDE, "height", where),
            _read_number(video.get("width"), MAX_SIDE, "width", where),
            _read_number(
                video.get("length", len(names) if isinstance(names, list) else None),
                10**6,
                "length",
                where,
            ),
        )

    categories: dict[int, str] = {}
    for index, category in enumerate(ground_truth["categories"]):
        where = f"{name}: categories[{index}]"
        category_id = _read_new_id(category, where, categories)
        categories[category_id] = str(category.get("name", category_id))
    return videos, dict(sorted(categories.items()))


def read_objects(
    ground_truth: Mapping[str, Any],
    videos: dict[int, Video],
    categories: dict[int, str],
    name: str,
) -> list[dict]:
    """The objects of a ground truth: id, image_id (the video's), category_id, iscrowd, area, track.

    Raises:
        DataError: There are no masks, or an annotation cannot be used.
    """
    if is_box_only(ground_truth):
        raise DataError(
            f"{name}: the annotations have no segmentations (boxes only), and mask AP needs masks"
            " to compare with. Give a ground truth whose annotations have 'segmentations': one RLE,"
            " polygon list or null per frame."
        )
    objects = []
    for index, annotation in enumerate(ground_truth["annotations"]):
        where = f"{name}: annotations[{index}]"
        video_id = _read_id(annotation, "video_id", where, videos)
        category_id = _read_id(annotation, "category_id", where, categories)
        where += f" (id {annotation.get('id')})"
        if not annotation.get("segmentations"):
            raise DataError(
                f"{where}: has no segmentations, while others have. Mask AP needs the masks of each"
                " track."
            )
        track = _read_track(annotation, video_id, videos[video_id], where)
        objects.append(
            {
                "id": index + 1,  # pycocotools takes id 0 for "not matched"
                "image_id": video_id,
                "category_id": category_id,
                "iscrowd": int(_read_flag(annotation, where)),
                "area": _read_area(annotation, track, where),
                "track": track,
            }
        )
    return objects


def read_detections(
    results: object, videos: dict[int, Video], categories: dict[int, str], name: str
) -> list[dict]:
    """The tracks of a results file: id, image_id (the video's), category_id, score, area, track.

    Raises:
        DataError: An entry cannot be used.
    """
    if not isinstance(results, list):
        raise DataError(f"{name}: expected a list of results, got {_kind(results)}.")
    detections = []
    for index, result in enumerate(results):
        where = f"{name}: results[{index}]"
        video_id = _read_id(result, "video_id", where, videos)
        category_id = _read_id(result, "category_id", where, categories)
        value = result.get("score")
        if not is_finite_number(value):
            raise DataError(f"{where}: expected score to be a finite number, got {value!r}.")
        track = _read_track(result, video_id, videos[video_id], where)
        detections.append(
            {
                "id": index + 1,
                "image_id": video_id,
                "category_id": category_id,
                "score": float(value),
                "area": track.mean_area,
                "track": track,
            }
        )
    return detections


def _read_track(entry: Mapping[str, Any], video_id: int, video: Video, where: str) -> Track:
    segmentations = entry.get("segmentations")
    where = f"{where}, video {video_id}"
    if not isinstance(segmentations, list):
        raise DataError(f"{where}: expected a list 'segmentations', got {_kind(segmentations)}.")
    if len(segmentations) != video.length:
        raise DataError(
            f"{where}: segmentations has {len(segmentations)} entries, but the video has"
            f" {video.length} frames. Give one per frame, null where the object is absent."
        )
    return decode_track(segmentations, video.height, video.width, where)


def _read_area(annotation: Mapping[str, Any], track: Track, where: str) -> float:
    """Mean of the non-zero ``areas`` of the file, as in the official evaluator, or of the masks."""
    areas = annotation.get("areas")
    if areas is None:
        return track.mean_area
    if not isinstance(areas, list) or not all(
        area is None or (is_finite_number(area) and area >= 0) for area in areas
    ):
        raise DataError(
            f"{where}: expected areas to be a list of numbers >= 0 or null, got {areas!r:.80}."
        )
    visible = [area for area in areas if area]
    return float(np.mean(visible)) if visible else track.mean_area


def _read_flag(annotation: Mapping[str, Any], where: str) -> bool:
    flag = annotation.get("iscrowd", 0)
    if flag not in (0, 1, None):
        raise DataError(f"{where}: expected iscrowd to be 0 or 1, got {flag!r}.")
    return bool(flag)


def _read_number(value: object, largest: int, field: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise DataError(
            f"{where}: expected {field} to be a whole number in 1..{largest}, got {value!r:.80}."
        )
    return value


def _read_new_id(entry: object, where: str, known: Mapping[int, object]) -> int:
    """The id of an entry, which no earlier entry may have."""
    new_id = _read_id(entry, "id", where, known=None)
    if new_id in known:
        raise DataError(f"{where}: id {new_id} is there twice; ids must differ.")
    return new_id


def _read_id(entry: object, field: str, where: str, known: Mapping[int, object] | None) -> int:
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: expected an object, got {_kind(entry)}.")
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{where}: expected {field} to be a whole number, got {value!r}.")
    if known is not None and value not in known:
        ids = sorted(known)
        shown = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
        raise DataError(
            f"{where}: {field} {value} is not in the ground truth, which has {len(ids)} of them"
            f" ({shown})."
        )
    return value


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
