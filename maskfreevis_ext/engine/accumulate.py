"""Several batches for one update of the weights (SOLVER.ACCUMULATE)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn


def reset_iteration_counter(model: nn.Module, iteration: int) -> None:
    """Set the step counters of warm-ups and schedules.

    They count calls of the model, and loaded weights overwrite them.

    Args:
        model: The model, with or without a DDP wrapper.
        iteration: The next iteration.
    """
    for module in model.modules():
        reset_schedule = getattr(module, "reset_schedule", None)  # criterion and auxiliary heads
        if reset_schedule is not None:
            reset_schedule(iteration)


def gradient_sync(model: nn.Module, is_last: bool) -> AbstractContextManager[object]:
    """Context of forward and backward pass of a batch; only the last one exchanges gradients.

    Args:
        model: With or without ``DistributedDataParallel``, which adds the gradients of the
            processes up after each backward pass outside its ``no_sync``.
        is_last: Whether the weights are updated after this batch.
    """
    no_sync = getattr(model, "no_sync", None)
    return nullcontext() if is_last or no_sync is None else no_sync()
