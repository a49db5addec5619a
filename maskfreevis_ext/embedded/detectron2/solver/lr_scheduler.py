"""Learning rates as fvcore schedules of the fraction of training that is done."""

from __future__ import annotations

from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim.lr_scheduler import LRScheduler


class WarmupParamScheduler(CompositeParamScheduler):
    """A schedule with a warm-up before it.

    Args:
        scheduler: The schedule.
        warmup_factor: The warm-up starts from this times the schedule's first value.
        warmup_length: Fraction of the training that it takes, in [0, 1].
        warmup_method: ``linear`` or ``constant``.
        rescale_interval: Squeeze the whole schedule behind the warm-up, instead of replacing its
            beginning.

    Raises:
        ValueError: The method is unknown.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        start = warmup_factor * scheduler(0.0)
        end = scheduler(0.0 if rescale_interval else warmup_length)
        if warmup_method == "linear":
            warmup: ParamScheduler = LinearParamScheduler(start, end)
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(start)
        else:
            raise ValueError(f"Warm-up {warmup_method!r}, expected 'linear' or 'constant'.")
        super().__init__(
            [warmup, scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
        )


class LRMultiplier(LRScheduler):
    """Multiplies the first learning rate of every parameter group by a schedule.

    Args:
        optimizer: The optimizer.
        multiplier: Factor as a function of iteration / max_iter.
        max_iter: Iterations of the training.
        last_iter: Last iteration that was done; -1 at the start.

    Raises:
        ValueError: ``multiplier`` is not an fvcore schedule.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multiplier: ParamScheduler,
        max_iter: int,
        last_iter: int = -1,
    ) -> None:
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"multiplier must be an fvcore ParamScheduler, got {multiplier!r}.")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        """Initial rates and the current iteration; the schedule itself follows from the config."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float | torch.Tensor]:
        """Learning rate of each parameter group at the current iteration."""
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]
