"""Evaluation of tracks: YouTube-VIS AP and AR."""

from maskfreevis_ext.evaluation.ytvis_eval import METRICS, Scores, score
from maskfreevis_ext.evaluation.ytvis_evaluation import YTVISEvaluator

__all__ = ["METRICS", "Scores", "YTVISEvaluator", "score"]
