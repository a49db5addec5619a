"""Optimizer and learning-rate schedule of Mask2Former and MaskFreeVIS."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from detectron2.solver.build import maybe_add_gradient_clipping
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn

from maskfreevis_ext.errors import ConfigError, NumericError

logger = logging.getLogger(__name__)

#: What ``nn.utils.clip_grads_with_norm_`` adds to the norm.
_CLIP_EPS = 1e-6

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
#: Names of Swin's parameters without weight decay.
_NEVER_DECAYED = ("relative_position_bias_table", "absolute_pos_embed")


def parameter_groups(model: nn.Module, cfg: CfgNode) -> list[dict[str, Any]]:
    """Sort the trainable parameters by learning rate and weight decay.

    A parameter of a module with "backbone" in its name has the learning rate
    ``BACKBONE_MULTIPLIER`` x ``BASE_LR``. The weight decay is ``WEIGHT_DECAY_NORM`` for norms,
    ``WEIGHT_DECAY_EMBED`` for embeddings, and ``WEIGHT_DECAY`` for all others, biases included. Two
    kinds have none: Swin's position tables, and parameters that a module names in a method
    ``no_weight_decay() -> set[str]`` (timm's convention; names as in ``named_parameters``), such as
    temperatures and gates, for which zero is not a neutral value.

    Args:
        model: The model.
        cfg: The config; keys of SOLVER.

    Returns:
        Groups for a torch optimizer, each with ``params``, ``lr`` and ``weight_decay``; every
        parameter is in exactly one group.
    """
    solver = cfg.SOLVER
    exempt = _named_without_decay(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            lr = solver.BASE_LR * (solver.BACKBONE_MULTIPLIER if "backbone" in module_name else 1.0)
            decay = solver.WEIGHT_DECAY
            if name in _NEVER_DECAYED or parameter in exempt:
                decay = 0.0
            elif isinstance(module, _NORMS):
                decay = solver.WEIGHT_DECAY_NORM
            elif isinstance(module, nn.Embedding):
                decay = solver.WEIGHT_DECAY_EMBED
            groups[lr, decay].append(parameter)
    return [
        {"params": params, "lr": lr, "weight_decay": decay}
        for (lr, decay), params in groups.items()
    ]


def _named_without_decay(model: nn.Module) -> set[nn.Parameter]:
    """The parameters that modules exempt from weight decay by ``no_weight_decay`` methods."""
    exempt = set()
    for module in model.modules():
        get_names = getattr(module, "no_weight_decay", None)
        if callable(get_names):
            names = get_names()
            exempt |= {parameter for name, parameter in module.named_parameters() if name in names}
    return exempt


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD over ``parameter_groups``, with the gradient clipping of SOLVER.CLIP_GRADIENTS.

    Args:
        cfg: The config; keys of SOLVER.
        model: The model.

    Returns:
        The optimizer.

    Raises:
        ConfigError: SOLVER.OPTIMIZER or CLIP_TYPE is unknown, or no parameter is trainable.
    """
    solver, clip = cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS
    groups = parameter_groups(model, cfg)
    if not groups:
        raise ConfigError("The model has no trainable parameter: all are frozen.")
    kinds: dict[str, type[torch.optim.Optimizer]] = {
        "ADAMW": torch.optim.AdamW,
        "SGD": torch.optim.SGD,
    }
    if solver.OPTIMIZER not in kinds:
        raise ConfigError(f"SOLVER.OPTIMIZER: expected ADAMW or SGD, got {solver.OPTIMIZER!r}.")
    kind = kinds[solver.OPTIMIZER]
    options: dict[str, Any] = {"lr": solver.BASE_LR}
    if all(p.device.type == "cpu" for group in groups for p in group["params"]):
        options["fused"] = True  # one pass over the parameters; GPUs have "foreach" by default
    if kind is torch.optim.SGD:
        options |= {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    if clip.ENABLED and clip.CLIP_TYPE == "full_model":
        make = with_full_model_clipping(kind, clip.CLIP_VALUE, clip.NORM_TYPE)
        optimizer: torch.optim.Optimizer = make(groups, **options)
    else:
        optimizer = maybe_add_gradient_clipping(cfg, kind(groups, **options))
    # The gradient scaler is to unscale the gradients before the step, in which they are clipped.
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def gradient_norm(optimizer: torch.optim.Optimizer, norm_type: float = 2.0) -> torch.Tensor:
    """The norm of all gradients of an optimizer's parameters as one vector.

    Args:
        optimizer: Parameters without a gradient are left out.
        norm_type: p of the p-norm.

    Returns:
        A scalar tensor on the device of the gradients.

    Raises:
        NumericError: The norm is NaN or infinite. The gradients are unchanged.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.get_total_norm([p.grad for p in params if p.grad is not None], norm_type)
    if not torch.isfinite(norm):
        raise NumericError(f"expected finite gradients, got a norm of {norm.item()}")
    return norm


class FullModelClip(torch.optim.Optimizer):
    """Mixin for optimizers that limits the norm of all gradients together before each step.

    ``with_full_model_clipping`` puts it before the optimizer class in the method resolution order.

    Attributes:
        max_norm: Largest norm of all gradients as one vector, > 0.
        norm_type: p of the p-norm.
        grad_norm: Norm before clipping in the last ``step``, a scalar tensor; None before the first
            step. Set it to None to find out later whether a step took place.
    """

    max_norm: float
    norm_type: float
    grad_norm: torch.Tensor | None = None
    grad_scale: torch.Tensor

    def step(self, closure: Any = None) -> Any:
        """Clip the gradients and update the parameters.

        Args:
            closure: As in torch's optimizers.

        Returns:
            The return value of the optimizer's own ``step``.

        Raises:
            NumericError: The norm is NaN or infinite. Parameters and gradients are unchanged, so
                that the caller can find the parameters whose gradients are not finite.
        """
        self.grad_norm = gradient_norm(self, self.norm_type)
        if all(group.get("fused") for group in self.param_groups):
            # The fused kernels divide by it on their way, and store the quotient as the gradient.
            self.grad_scale = ((self.grad_norm + _CLIP_EPS) / self.max_norm).clamp(min=1.0).float()
            try:
                return super().step(closure)
            finally:
                del self.grad_scale
        params = [p for group in self.param_groups for p in group["params"]]
        nn.utils.clip_grads_with_norm_(params, self.max_norm, self.grad_norm)
        return super().step(closure)


def with_full_model_clipping(
    kind: type[torch.optim.Optimizer], max_norm: float, norm_type: float
) -> Callable[..., FullModelClip]:
    """Derive an optimizer class that limits the norm of all gradients before each step.

    Args:
        kind: The optimizer class to extend.
        max_norm: Largest norm of all gradients as one vector, > 0.
        norm_type: p of the p-norm.

    Returns:
        A subclass of ``FullModelClip`` and of ``kind``.
    """
    members = {"max_norm": max_norm, "norm_type": norm_type}
    return type(f"{kind.__name__}WithFullModelClip", (FullModelClip, kind), members)


class WarmupPoly(ParamScheduler):
    """DeepLab's schedule: (1 - progress) ** power times a warm-up, at least ``ending``.

    Args:
        power: Exponent, >= 0.
        ending: Least factor after the warm-up, in [0, 1].
        warmup_factor: Factor at the start of the warm-up, in [0, 1].
        warmup_fraction: Length of the warm-up as a fraction of the training, in [0, 1].
        warmup_method: "linear" (from ``warmup_factor`` to 1) or "constant".

    Raises:
        ConfigError: The method is unknown.
    """

    def __init__(
        self,
        power: float,
        ending: float,
        warmup_factor: float,
        warmup_fraction: float,
        warmup_method: str,
    ) -> None:
        if warmup_method not in ("linear", "constant"):
            raise ConfigError(
                f"SOLVER.WARMUP_METHOD: expected linear or constant, got {warmup_method!r}."
            )
        self.power = power
        self.ending = ending
        self.warmup_factor = warmup_factor
        self.warmup_fraction = warmup_fraction
        self.warmup_method = warmup_method

    def __call__(self, where: float) -> float:
        """Factor on the base learning rate at the fraction ``where`` of the training, in [0, 1]."""
        poly = (1.0 - min(where, 1.0)) ** self.power
        if where < self.warmup_fraction:
            if self.warmup_method == "constant":
                return self.warmup_factor * poly
            alpha = where / self.warmup_fraction
            return (self.warmup_factor * (1.0 - alpha) + alpha) * poly
        return max(poly, self.ending)


def build_lr_scheduler(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """Build the schedule of SOLVER.LR_SCHEDULER_NAME: one of Detectron2's, or WarmupPolyLR.

    Args:
        cfg: The config; keys of SOLVER.
        optimizer: The optimizer whose learning rates it sets.

    Returns:
        A scheduler whose ``step`` is called once per iteration.

    Raises:
        ConfigError: SOLVER.WARMUP_METHOD is unknown.
    """
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
        return build_detectron2_lr_scheduler(_without_late_steps(cfg), optimizer)
    poly = WarmupPoly(
        solver.POLY_LR_POWER,
        solver.POLY_LR_CONSTANT_ENDING,
        solver.WARMUP_FACTOR,
        solver.WARMUP_ITERS / solver.MAX_ITER,
        solver.WARMUP_METHOD,
    )
    return LRMultiplier(optimizer, multiplier=poly, max_iter=solver.MAX_ITER)


def _without_late_steps(cfg: CfgNode) -> CfgNode:
    """The config without SOLVER.STEPS at or after MAX_ITER, on which Detectron2 fails."""
    steps = tuple(step for step in cfg.SOLVER.STEPS if step < cfg.SOLVER.MAX_ITER)
    if len(steps) == len(cfg.SOLVER.STEPS):
        return cfg
    logger.warning(
        "SOLVER.STEPS %s: those from SOLVER.MAX_ITER %d on are never reached.",
        tuple(cfg.SOLVER.STEPS),
        cfg.SOLVER.MAX_ITER,
    )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.STEPS = steps
    return cfg
