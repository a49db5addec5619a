"""Gradient clipping and learning rates from a config."""

from detectron2.solver.build import build_lr_scheduler, maybe_add_gradient_clipping
from detectron2.solver.lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler

__all__ = [
    "LRMultiplier",
    "LRScheduler",
    "WarmupParamScheduler",
    "build_lr_scheduler",
    "maybe_add_gradient_clipping",
]
