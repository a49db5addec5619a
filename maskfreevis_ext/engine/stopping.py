"""Ends a training after a whole step when a signal asks for it, with a checkpoint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm

from maskfreevis_ext.engine.interrupt import StopOnInterrupt

if TYPE_CHECKING:
    from maskfreevis_ext.engine.trainer import Trainer

#: What the first signal prints.
NOTICE = "Stopping after this step, with a checkpoint (Ctrl-C again: at once, without)."


class StopAtStep(HookBase):
    """Saves a checkpoint and ends the training after the step in which a signal came.

    Several processes agree on the step: the code of the signal is reduced while the step is
    computed, and read after it. The hook stands before the checkpointer and the evaluation.

    Args:
        stop: Knows whether a signal came.
    """

    trainer: Trainer

    def __init__(self, stop: StopOnInterrupt) -> None:
        self._stop = stop
        self._group: Any = None
        self._work: Any = None

    def before_train(self) -> None:
        """Make a group for the CPU, unless the processes have one."""
        if comm.get_world_size() > 1 and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")

    def before_step(self) -> None:
        """Begin to ask the other processes."""
        if comm.get_world_size() > 1:
            self._code = torch.tensor([self._stop.exit_code])
            self._work = dist.all_reduce(
                self._code, dist.ReduceOp.MAX, group=self._group, async_op=True
            )

    def after_step(self) -> None:
        """Stop if a signal came to any process.

        Raises:
            KeyboardInterrupt: After saving the checkpoint.
        """
        if self._work is not None:
            self._work.wait()
            self._work, code = None, int(self._code)
        else:
            code = self._stop.exit_code
        if code:
            try:
                self.trainer.save_and_stop(code)
            finally:
                comm.synchronize()  # the first to end would have the others terminated


def stopped_message(path: str, done: int, total: int) -> str:
    """The line that ends a stopped training.

    Args:
        path: The checkpoint; it need not exist, if the disk is full.
        done: Iterations.
        total: SOLVER.MAX_ITER.
    """
    if os.path.isfile(path):
        return (
            f"Stopped after {done} of {total} iterations; {path} is saved. The same command with"
            " --resume goes on."
        )
    return (
        f"Stopped after {done} of {total} iterations; {path} could not be saved. The same command"
        " with --resume goes on from the last checkpoint."
    )
