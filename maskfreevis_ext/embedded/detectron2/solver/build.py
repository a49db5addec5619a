"""Parameter groups, gradient clipping, optimizer and learning-rate schedule from ``cfg.SOLVER``."""

from __future__ import annotations

import copy
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

_NORM_LAYERS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


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
    cfg: CfgNode, optimizer: type[torch.optim.Optimizer] | torch.optim.Optimizer
) -> type[torch.optim.Optimizer] | torch.optim.Optimizer:
    """Clip the gradient of each parameter by itself before every step, if ``SOLVER.CLIP_GRADIENTS.ENABLED``.

    Args:
        cfg: The config.
        optimizer: Class, or object, which then changes its class.

    Returns:
        The same kind of thing as ``optimizer``.
    """
    if not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        return optimizer
    is_object = isinstance(optimizer, torch.optim.Optimizer)
    base = type(optimizer) if is_object else optimizer
    clip = _build_clipper(cfg.SOLVER.CLIP_GRADIENTS)

    def step(self: torch.optim.Optimizer, closure: Callable | None = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                clip(parameter)
        return base.step(self, closure)

    clipping = type(base.__name__ + "WithGradientClip", (base,), {"step": step})
    if is_object:
        optimizer.__class__ = clipping
        return optimizer
    return clipping


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SGD as ``cfg.SOLVER`` says, with gradient clipping if it is on."""
    solver = cfg.SOLVER
    parameters = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    optimizer = torch.optim.SGD(
        parameters,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        foreach=True,
    )
    return maybe_add_gradient_clipping(cfg, optimizer)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Trainable parameters in groups of equal settings.

    Args:
        model: The model.
        base_lr: Learning rate of every group; None leaves it to the optimizer.
        weight_decay: Weight decay of every group; None leaves it to the optimizer.
        weight_decay_norm: Weight decay of normalisation layers.
        bias_lr_factor: Biases learn at this times ``base_lr``.
        weight_decay_bias: Weight decay of biases.
        lr_factor_func: Full parameter name -> factor of ``base_lr``.
        overrides: Last part of a parameter's name -> settings.

    Raises:
        ValueError: A factor is given without ``base_lr``, or biases are spoken of twice.
    """
    overrides = dict(overrides or {})
    defaults = {"lr": base_lr, "weight_decay": weight_decay}
    defaults = {name: value for name, value in defaults.items() if value is not None}
    changes_bias_lr = bias_lr_factor is not None and bias_lr_factor != 1.0
    if base_lr is None and (changes_bias_lr or lr_factor_func is not None):
        raise ValueError("bias_lr_factor and lr_factor_func need base_lr.")
    bias = {"lr": base_lr * bias_lr_factor} if changes_bias_lr else {}
    if weight_decay_bias is not None:
        bias["weight_decay"] = weight_decay_bias
    if bias:
        if "bias" in overrides:
            raise ValueError("overrides has 'bias', and so have the arguments for biases.")
        overrides["bias"] = bias

    groups: dict[tuple, list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            settings = copy.copy(defaults)
            if weight_decay_norm is not None and isinstance(module, _NORM_LAYERS):
                settings["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                settings["lr"] *= lr_factor_func(f"{module_name}.{name}")
            settings.update(overrides.get(name, {}))
            groups.setdefault(tuple(settings.items()), []).append(parameter)
    return [{**dict(settings), "params": members} for settings, members in groups.items()]


def reduce_param_groups(params: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join parameter groups whose settings are equal; the order is that of first appearance.

    A parameter that appears twice gets the settings of both, the later ones winning.
    """
    settings_of: dict[nn.Parameter, dict[str, Any]] = {}
    for group in params:
        settings = {name: value for name, value in group.items() if name != "params"}
        for parameter in group["params"]:
            settings_of.setdefault(parameter, {}).update(settings)
    groups: dict[tuple, list[nn.Parameter]] = {}
    for parameter, settings in settings_of.items():
        groups.setdefault(tuple(settings.items()), []).append(parameter)
    return [{**dict(settings), "params": members} for settings, members in groups.items()]


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
                f"SOLVER.BASE_LR_END {solver.BASE_LR_END} must lie in [0, BASE_LR {solver.BASE_LR}]."
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
