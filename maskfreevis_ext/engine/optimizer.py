"""Optimizer and learning-rate schedule of Mask2Former and MaskFreeVIS."""

from __future__ import annotations

import logging
from collections import defaultdict

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from detectron2.solver.build import maybe_add_gradient_clipping
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn

from maskfreevis_ext.errors import ConfigError, NumericError

logger = logging.getLogger(__name__)

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
#: Parameters of Swin that are never decayed, by their own name.
_NEVER_DECAYED = ("relative_position_bias_table", "absolute_pos_embed")


def parameter_groups(model: nn.Module, cfg: CfgNode) -> list[dict]:
    """Sort the trainable parameters by learning rate and weight decay.

    A parameter under a module with "backbone" in its name learns at ``BACKBONE_MULTIPLIER`` x
    ``BASE_LR``. Norms take ``WEIGHT_DECAY_NORM``, embeddings ``WEIGHT_DECAY_EMBED``, Swin's
    position tables none, all others (biases too) ``WEIGHT_DECAY``.

    Args:
        model: The model.
        cfg: The config; keys of SOLVER.

    Returns:
        Groups for a torch optimizer, each with ``params``, ``lr`` and ``weight_decay``; every
        parameter in one group.
    """
    solver = cfg.SOLVER
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            lr = solver.BASE_LR * (solver.BACKBONE_MULTIPLIER if "backbone" in module_name else 1.0)
            decay = solver.WEIGHT_DECAY
            if isinstance(module, _NORMS):
                decay = solver.WEIGHT_DECAY_NORM
            elif isinstance(module, nn.Embedding):
                decay = solver.WEIGHT_DECAY_EMBED
            elif name in _NEVER_DECAYED:
                decay = 0.0
            groups[lr, decay].append(parameter)
    return [
        {"params": params, "lr": lr, "weight_decay": decay}
        for (lr, decay), params in groups.items()
    ]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD over ``parameter_groups``, with the gradient clipping of SOLVER.CLIP_GRADIENTS.

    Args:
        cfg: The config; keys of SOLVER.
        model: The model.

    Returns:
        The optimizer.

    Raises:
        ConfigError: SOLVER.OPTIMIZER or CLIP_TYPE is unknown, or the model has nothing to train.
    """
    solver, clip = cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS
    groups = parameter_groups(model, cfg)
    if not groups:
        raise ConfigError("The model has no parameter that can be trained: all are frozen.")
    kinds = {"ADAMW": torch.optim.AdamW, "SGD": torch.optim.SGD}
    if solver.OPTIMIZER not in kinds:
        raise ConfigError(f"SOLVER.OPTIMIZER: expected ADAMW or SGD, got {solver.OPTIMIZER!r}.")
    kind = kinds[solver.OPTIMIZER]
    options = (
        {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
        if kind is torch.optim.SGD
        else {}
    )
    if clip.ENABLED and clip.CLIP_TYPE == "full_model":
        kind = with_full_model_clipping(kind, clip.CLIP_VALUE, clip.NORM_TYPE)
        return kind(groups, lr=solver.BASE_LR, **options)
    return maybe_add_gradient_clipping(cfg, kind(groups, lr=solver.BASE_LR, **options))


def with_full_model_clipping(
    kind: type[torch.optim.Optimizer], max_norm: float, norm_type: float
) -> type[torch.optim.Optimizer]:
    """A kind of optimizer that scales all gradients together to a greatest norm before it steps.

    Args:
        kind: The optimizer class to extend.
        max_norm: Greatest norm of all gradients as one vector, > 0.
        norm_type: p of the p-norm.

    Returns:
        A subclass of ``kind``. Its ``grad_norm`` is the norm before clipping, a scalar tensor, None
        before the first step. Its ``step`` raises NumericError on a norm that is not finite, with
        the parameters unchanged.
    """

    class FullModelClip(kind):
        grad_norm: torch.Tensor | None = None

        def step(self, closure: object = None) -> object:
            params = [
                p for group in self.param_groups for p in group["params"] if p.grad is not None
            ]
            self.grad_norm = nn.utils.clip_grad_norm_(params, max_norm, norm_type)
            if not torch.isfinite(self.grad_norm):
                raise NumericError(
                    f"expected finite gradients, got a norm of {self.grad_norm.item()}"
                )
            return super().step(closure)

    FullModelClip.__name__ = FullModelClip.__qualname__ = f"{kind.__name__}WithFullModelClip"
    return FullModelClip


class WarmupPoly(ParamScheduler):
    """DeepLab's schedule: (1 - progress) ** power, times a warm-up, never below a constant."""

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
        """The factor on the base learning rate at ``where`` in [0, 1] of the training."""
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
    """The schedule named by SOLVER.LR_SCHEDULER_NAME: Detectron2's, or WarmupPolyLR.

    Args:
        cfg: The config; keys of SOLVER.
        optimizer: What it drives.

    Returns:
        A scheduler to step once per iteration.
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
    """The config without steps after the end; Detectron2 fails on one at the very end."""
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
