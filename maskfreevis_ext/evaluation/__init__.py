"""Evaluation of tracks: YouTube-VIS AP and AR, and the registry of evaluators."""

from maskfreevis_ext.evaluation.evaluator import YTVISEvaluator
from maskfreevis_ext.evaluation.registry import EVALUATOR_REGISTRY, build_evaluator
from maskfreevis_ext.evaluation.score import METRICS, Scores, score_results

__all__ = [
    "EVALUATOR_REGISTRY",
    "METRICS",
    "Scores",
    "YTVISEvaluator",
    "build_evaluator",
    "score_results",
]
