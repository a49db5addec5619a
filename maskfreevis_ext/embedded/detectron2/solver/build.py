"""Gradient clipping and learning-rate schedule from ``cfg.SOLVER``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn


def _build_clipper(settings: CfgNode) -> Callable[[nn.Parameter], Any]:
    limit, norm_type = settings.CLIP_VALUE, settings.NORM_TYPE
    if settings.CLIP_TYPE == "value":
        return lambda parameter: nn.utils.clip_grad_value_(parameter, limit)
    if settings.CLIP_TYPE == "norm":
        return lambda parameter: nn.utils.clip_grad_norm_(parameter, limit, norm_type)
    raise ValueError(
        f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE {settings.CLIP_TYPE!r}, expected 'value' or 'norm'."
    )


def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
) -> torch.optim.Optimizer:
    """Clip the gradient of each parameter by itself before every step, if the config says so.

    Args:
        cfg: The config.
        optimizer: The optimizer; it changes its class.

    Returns:
        The same object.

    Raises:
        ValueError: ``SOLVER.CLIP_GRADIENTS.CLIP_TYPE`` is unknown.
    """
    if not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        return optimizer
    base: Any = type(optimizer)
    clip = _build_clipper(cfg.SOLVER.CLIP_GRADIENTS)

    def step(self: torch.optim.Optimizer, closure: Callable | None = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                clip(parameter)
        return base.step(self, closure)

    optimizer.__class__ = type(base.__name__ + "WithGradientClip", (base,), {"step": step})
    return optimizer


def _build_schedule(cfg: CfgNode) -> ParamScheduler:
    solver = cfg.SOLVER
    name = solver.LR_SCHEDULER_NAME
    if name == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if step <= solver.MAX_ITER]
        if len(steps) != len(solver.STEPS):
            logging.getLogger(__name__).warning(
                "Entries of SOLVER.STEPS %s beyond SOLVER.MAX_ITER %d are ignored.",
                tuple(solver.STEPS),
                solver.MAX_ITER,
            )
        return MultiStepParamScheduler(
            values=[solver.GAMMA**power for power in range(len(steps) + 1)],
            milestones=steps,
            num_updates=solver.MAX_ITER,
        )
    if name == "WarmupCosineLR":
        end = solver.BASE_LR_END / solver.BASE_LR
        if not 0.0 <= end <= 1.0:
            raise AssertionError(
                f"SOLVER.BASE_LR_END {solver.BASE_LR_END} must lie in [0, {solver.BASE_LR}]."
            )
        return CosineParamScheduler(1, end)
    if name == "WarmupStepWithFixedGammaLR":
        return StepWithFixedGammaParamScheduler(
            base_value=1.0,
            gamma=solver.GAMMA,
            num_decays=solver.NUM_DECAYS,
            num_updates=solver.MAX_ITER,
        )
    raise ValueError(
        f"Unknown SOLVER.LR_SCHEDULER_NAME {name!r}, expected WarmupMultiStepLR, WarmupCosineLR or "
        "WarmupStepWithFixedGammaLR."
    )


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Build ``SOLVER.LR_SCHEDULER_NAME`` with its warm-up.

    Raises:
        ValueError: The name is unknown.
    """
    solver = cfg.SOLVER
    schedule = WarmupParamScheduler(
        _build_schedule(cfg),
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=schedule, max_iter=solver.MAX_ITER)
