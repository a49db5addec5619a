"""Evaluation of tracks: YouTube-VIS AP, HOTA, IDF1, J&F, and the registries of both kinds."""

from maskfreevis_ext.evaluation.evaluator import YTVISEvaluator
from maskfreevis_ext.evaluation.metrics import TRACK_METRIC_REGISTRY
from maskfreevis_ext.evaluation.registry import (
    EVALUATOR_REGISTRY,
    build_evaluator,
    evaluator_names,
)
from maskfreevis_ext.evaluation.score import METRICS, Scores, score_results

__all__ = [
    "EVALUATOR_REGISTRY",
    "METRICS",
    "TRACK_METRIC_REGISTRY",
    "Scores",
    "YTVISEvaluator",
    "build_evaluator",
    "evaluator_names",
    "score_results",
]
