"""What follows a batch whose losses or gradients are NaN or infinite: it is kept for a replay."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.utils import comm
from torch import nn

from maskfreevis_ext.engine.accumulate import reset_iteration_counter
from maskfreevis_ext.engine.ema import unwrapped
from maskfreevis_ext.engine.train_step import NumericErrorElsewhere
from maskfreevis_ext.errors import NumericError
from maskfreevis_ext.files import atomic_write
from maskfreevis_ext.modeling.matcher import VideoHungarianMatcher

if TYPE_CHECKING:
    from maskfreevis_ext.engine.trainer import Trainer

logger = logging.getLogger(__name__)

#: Steps in a row, or of all where they are more than 1 %, that may be left out.
MAX_SKIPPED = 10


def skips_together(action: str, model: nn.Module) -> bool:
    """Whether the processes of this job have to agree on the steps that are left out.

    Then the matcher of the model raises no error, which would end one process alone; the losses of
    such a batch are not finite either.

    Args:
        action: "raise" or "skip".
        model: What is trained, before ``DistributedDataParallel``.
    """
    if action != "skip" or comm.get_world_size() == 1:
        return False
    for module in model.modules():
        if isinstance(module, VideoHungarianMatcher):
            module.nonfinite_cost = "replace"
    return True


class BadBatches:
    """Follows SOLVER.ON_NONFINITE: ends the training, or leaves the step out within bounds.

    The first bad batch of a process is written to ``OUTPUT_DIR/bad_batch_ITERATION.pt``, with the
    weights, for ``tools/replay_batch.py``.

    Args:
        action: "raise" or "skip".
    """

    def __init__(self, action: str) -> None:
        self._action = action
        self._file = ""
        self.count = self.in_a_row = 0

    def state_dict(self) -> dict[str, int]:
        """Steps left out so far, for the checkpoint."""
        return {"count": self.count, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on with the counts of ``state_dict``."""
        self.count, self.in_a_row = state_dict["count"], state_dict["in_a_row"]

    def step_done(self) -> None:
        """Note a step without an error."""
        self.in_a_row = 0

    def handle(self, error: NumericError, trainer: Trainer) -> None:
        """Keep the batch; leave the step out, or end the training.

        Args:
            error: Of the step; the weights are unchanged.
            trainer: In the step.

        Raises:
            NumericError: The training is to end; says how to replay the batch.
        """
        if not self._file and not isinstance(error, NumericErrorElsewhere):
            self._file = _save(error, trainer)
        self.count += 1
        self.in_a_row += 1
        message = str(error)
        if self._file:
            message += (
                f" The batch is kept: python tools/replay_batch.py --batch {self._file} "
                "--config-file YAML shows where it begins."
            )
        if self._action == "raise":
            raise NumericError(message) from error
        allowed = max(MAX_SKIPPED, (trainer.iter + 1) // 100)
        if self.in_a_row > MAX_SKIPPED or self.count > allowed:
            raise NumericError(
                f"{message} SOLVER.ON_NONFINITE: {self.count} steps were left out, "
                f"{self.in_a_row} of them in a row; allowed are {allowed} and {MAX_SKIPPED}."
            ) from error
        broken = [n for n, b in trainer.model.named_buffers() if not bool(torch.isfinite(b).all())]
        if broken:
            raise NumericError(
                f"{message} The step cannot be left out: its statistics are in {broken[0]} already."
            ) from error
        logger.warning("SOLVER.ON_NONFINITE: the step is left out. %s", message)
        reset_iteration_counter(trainer.model, trainer.iter + 1)
        trainer.storage.put_scalar("skipped_steps", self.count, smoothing_hint=False)


def _save(error: NumericError, trainer: Trainer) -> str:
    """Write batch and weights; returns the path, "" where that failed."""
    rank = comm.get_rank()
    suffix = f"_rank{rank}" if comm.get_world_size() > 1 else ""
    path = os.path.join(trainer.cfg.OUTPUT_DIR, f"bad_batch_{trainer.iter:07d}{suffix}.pt")
    content = {
        "iteration": trainer.iter,
        "seed": trainer.seed,
        "rank": rank,
        "error": str(error),
        "batches": [plain(batch) for batch in trainer._trainer.batches],
        "model": unwrapped(trainer.model).state_dict(),
    }
    try:
        with atomic_write(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as e:  # torch reports a full disk as a RuntimeError
        logger.warning("The batch could not be kept in %s: %s", path, e)
        return ""
    return path


def plain(value: Any) -> Any:
    """A value as tensors and plain Python values, which can be loaded without running code.

    Args:
        value: Dicts, lists, tuples, tensors, arrays, numbers, texts; of a dict, entries of other
            types are left out.

    Returns:
        The same without what is left out; tensors on the CPU, arrays as tensors.

    Example:
        >>> plain({"ids": (1, 2), "source": object()})
        {'ids': (1, 2)}
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if _is_plain(one)}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(one) for one in value)
    return value


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    kinds = (dict, str, int, float, bool, type(None), torch.Tensor, np.ndarray, np.generic)
    return isinstance(value, kinds)
