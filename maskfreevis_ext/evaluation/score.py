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
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskfreevis_ext.evaluation.ground_truth import (
    FoundTrack,
    GroundTruth,
    TrueTrack,
    Video,
    read_detections,
    read_ground_truth,
)
from maskfreevis_ext.evaluation.overlap import iou_of_tracks

#: Names of the metrics, in the order of display.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")

_MAX_DETECTIONS = (1, 10, 100)
_AREA_NAMES = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class Scores:
    """Numbers of one metric, in percent; NaN if there is no object to measure.

    Attributes:
        task: Name of the group of numbers in Detectron2's tables and ``metrics.json``.
        metrics: Values by name, in the order of display; the first is the main one.
        per_class: (class name, main value), one for each category of the ground truth, sorted by
            category id; empty for a metric that does not look at classes.
    """

    task: str
    metrics: dict[str, float]
    per_class: list[tuple[str, float]]

    @property
    def main(self) -> str:
        """Name of the main value."""
        return next(iter(self.metrics))


def score_results(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    ground_truth_name: str = "ground truth",
    results_name: str = "results",
) -> Scores:
    """Compare results with the ground truth as the official YouTube-VIS evaluator does.

    Args:
        ground_truth: Content of a YTVIS annotation file with masks. ``areas`` and ``iscrowd`` may
            be absent.
        results: Content of a ``results.json``: dicts with video_id, category_id, score and
            segmentations (one RLE or null per frame). May be empty.
        ground_truth_name: File name for messages.
        results_name: File name for messages.

    Returns:
        The numbers of ``METRICS``.

    Raises:
        DataError: An entry of either is malformed, or they do not fit; names entry and field.
    """
    truth = read_ground_truth(ground_truth, ground_truth_name)
    return average_precision(truth, read_detections(results, truth, results_name))


def average_precision(truth: GroundTruth, detections: Sequence[FoundTrack]) -> Scores:
    """AP and AR of tracks as the official YouTube-VIS evaluator computes them.

    Yang et al., "Video Instance Segmentation", ICCV 2019, section 3.2 (arXiv:1905.04804). IoU
    thresholds 0.50 to 0.95 in steps of 0.05; at most 100 results per video and class; small < 128^2
    <= medium < 256^2 <= large, in pixels of the mean area over the frames where the track has any.

    Args:
        truth: The ground truth.
        detections: The predicted tracks.

    Returns:
        The numbers of ``METRICS``.
    """
    objects = [
        _annotation(each, index, area=each.area, iscrowd=int(each.is_crowd))
        for index, each in enumerate(truth.objects)
    ]
    found = [
        _annotation(each, index, area=each.track.mean_area, score=each.score)
        for index, each in enumerate(detections)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _TrackEval(_make_coco(truth, objects), _make_coco(truth, found), truth.videos)
        evaluation.evaluate()
        evaluation.accumulate()
    return _summarize(evaluation, truth.categories)


def _annotation(each: TrueTrack | FoundTrack, index: int, **more: float) -> dict[str, Any]:
    """A track as pycocotools takes it."""
    return {
        "id": index + 1,  # pycocotools takes id 0 for "not matched"
        "image_id": each.video_id,
        "category_id": each.category_id,
        "track": each.track,
        **more,
    }


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


def _make_coco(truth: GroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": video_id} for video_id in truth.videos],
        "categories": [{"id": category_id} for category_id in truth.categories],
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
        task="segm",
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
