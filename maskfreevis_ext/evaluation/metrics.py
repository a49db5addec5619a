"""The metrics of mask tracks by name; each compares results with a ground truth."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from detectron2.utils.registry import Registry
from tabulate import tabulate

from maskfreevis_ext.evaluation.davis import davis_scores
from maskfreevis_ext.evaluation.ground_truth import FoundTrack, GroundTruth
from maskfreevis_ext.evaluation.score import Scores, average_precision
from maskfreevis_ext.evaluation.tracking import hota_scores, identity_scores

#: Least score of a track for metrics that do not rank tracks by their scores.
MIN_SCORE = 0.3

TRACK_METRIC_REGISTRY = Registry("TRACK_METRIC")
TRACK_METRIC_REGISTRY.__doc__ = """
Functions (ground truth, detections, least score) -> ``Scores``. The name of a function is the name
of the metric in ``TEST.EVALUATORS``.
"""


@TRACK_METRIC_REGISTRY.register()
def ytvis_ap(truth: GroundTruth, detections: Sequence[FoundTrack], min_score: float) -> Scores:
    """YouTube-VIS AP and AR, of all tracks."""
    return average_precision(truth, detections)


@TRACK_METRIC_REGISTRY.register()
def hota(truth: GroundTruth, detections: Sequence[FoundTrack], min_score: float) -> Scores:
    """HOTA, DetA, AssA and LocA, of the tracks with at least the given score."""
    return hota_scores(truth, detections, min_score)


@TRACK_METRIC_REGISTRY.register()
def idf1(truth: GroundTruth, detections: Sequence[FoundTrack], min_score: float) -> Scores:
    """IDF1, IDP and IDR, of the tracks with at least the given score."""
    return identity_scores(truth, detections, min_score)


@TRACK_METRIC_REGISTRY.register()
def davis_jf(truth: GroundTruth, detections: Sequence[FoundTrack], min_score: float) -> Scores:
    """J and F of DAVIS, of the best 20 tracks of each video."""
    return davis_scores(truth, detections)


def metric_names() -> list[str]:
    """Names of the metrics, in the order of their registration."""
    return [name for name, _ in TRACK_METRIC_REGISTRY]


def format_scores(scores: Scores, names: Iterable[str] | None = None) -> str:
    """Text tables: the metrics and, where there are, the values per class. In percent.

    Args:
        scores: The numbers.
        names: Metrics to show; None shows all.
    """
    names = list(scores.metrics if names is None else names)
    overall = tabulate(
        [[scores.metrics[name] for name in names]],
        headers=names,
        tablefmt="pipe",
        floatfmt=".3f",
        numalign="center",
    )
    if not scores.per_class:
        return overall
    columns = 3 if len(scores.per_class) > 3 else 1
    rows = [
        list(itertools.chain.from_iterable(scores.per_class[start : start + columns]))
        for start in range(0, len(scores.per_class), columns)
    ]
    per_class = tabulate(
        rows, headers=["class", scores.main] * columns, tablefmt="pipe", floatfmt=".3f"
    )
    return f"{overall}\n\n{scores.main} per class:\n{per_class}"
