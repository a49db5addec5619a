"""The training loop: trainers and the hooks that they call."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn


class HookBase:
    """Base class of actions around the training steps, such as logging or saving.

    The trainer calls each method of all its hooks, in the order of registration.

    Attributes:
        trainer: The trainer (a weak reference), once the hook is registered.
    """

    trainer: Any  # hooks read attributes of the trainer's own class

    def before_train(self) -> None:
        """Before the first iteration."""

    def after_train(self) -> None:
        """After the last iteration, or an error."""

    def before_step(self) -> None:
        """Before each iteration."""

    def after_backward(self) -> None:
        """After the gradients of each iteration."""

    def after_step(self) -> None:
        """After each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """State to store in a checkpoint; an empty dict is not stored."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state that ``state_dict`` returned."""


class TrainerBase:
    """A loop with hooks. A subclass writes ``run_step``.

    Attributes:
        iter: Current iteration.
        start_iter: First iteration.
        max_iter: The iteration to stop before.
        storage: Scalars of the training, while it runs.
    """

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter = 0
        self.start_iter = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: Sequence[HookBase | None]) -> None:
        """Append hooks to the list; None entries are skipped.

        Raises:
            AssertionError: An entry is not a ``HookBase``.
        """
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, HookBase):
                raise AssertionError(f"A hook must be a HookBase, got {type(hook)}.")
            hook.trainer = weakref.proxy(self)
            self._hooks.append(hook)

    def _run_loop(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations ``start_iter`` ... ``max_iter`` - 1.

        ``iter`` is ``max_iter`` in ``after_train`` only if all of them succeeded.
        """
        logger = logging.getLogger(__name__)
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter += 1
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        """Call the hooks."""
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        """Call the hooks."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self) -> None:
        """Call the hooks."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        """Call the hooks."""
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        """Call the hooks."""
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """Do one iteration.

        Raises:
            NotImplementedError: The subclass does not define it.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The iteration, and the state of the hooks by the names of their classes."""
        hooks: dict[str, Any] = {}
        for hook in self._hooks:
            state = hook.state_dict()
            if state:
                hooks.setdefault(type(hook).__qualname__, state)
        return {"iteration": self.iter, **({"hooks": hooks} if hooks else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state; the state of a hook that is not registered is ignored with a warning."""
        self.iter = state_dict["iteration"]
        by_name: dict[str, HookBase] = {}
        for hook in self._hooks:
            by_name.setdefault(type(hook).__qualname__, hook)
        for name, state in state_dict.get("hooks", {}).items():
            if name in by_name:
                by_name[name].load_state_dict(state)
            else:
                logging.getLogger(__name__).warning(
                    "The checkpoint has a state of hook '%s', which is not in use.", name
                )


class SimpleTrainer(TrainerBase):
    """One model, one optimizer, one loader: losses, gradients, update.

    Args:
        model: Takes a batch, returns a dict of scalar losses.
        data_loader: Gives batches without end.
        optimizer: Steps once per iteration.
    """

    def __init__(
        self, model: nn.Module, data_loader: Iterable, optimizer: torch.optim.Optimizer
    ) -> None:
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self._data_loader_iter_obj: Iterator | None = None

    @property
    def _data_loader_iter(self) -> Iterator:
        # Created at the first use, as this starts the worker processes.
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
        return self._data_loader_iter_obj

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations ``start_iter`` ... ``max_iter`` - 1."""
        self._run_loop(start_iter, max_iter)

    def run_step(self) -> None:
        """Take a batch and update the weights once.

        Raises:
            FloatingPointError: The loss is NaN or infinite; names the iteration and the losses.
        """
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        losses = self.model(data)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.after_backward()
        self._write_metrics(losses, data_time)
        self.optimizer.step()

    def _write_metrics(self, loss_dict: Mapping[str, Tensor], data_time: float) -> None:
        self.write_metrics(loss_dict, data_time, self.iter)

    @staticmethod
    def write_metrics(loss_dict: Mapping[str, Tensor], data_time: float, cur_iter: int) -> None:
        """Store losses (means over processes, and ``total_loss``) and the longest loading time.

        Args:
            loss_dict: Scalar losses.
            data_time: Seconds that this process waited for data.
            cur_iter: Iteration.

        Raises:
            FloatingPointError: The sum is NaN or infinite; names the iteration and the losses.
        """
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", data_time, cur_iter=cur_iter)
        metrics = {name: loss.detach().cpu().item() for name, loss in loss_dict.items()}
        gathered = comm.gather({**metrics, "data_time": data_time})
        if not comm.is_main_process():
            return
        longest = np.max([entry.pop("data_time") for entry in gathered])
        storage.put_scalar("data_time", longest, cur_iter=cur_iter)
        means = {name: np.mean([entry[name] for entry in gathered]) for name in gathered[0]}
        total = sum(means.values())
        if not np.isfinite(total):
            raise FloatingPointError(
                f"Loss became infinite or NaN at iteration={cur_iter}!\nloss_dict = {means}"
            )
        storage.put_scalar("total_loss", total, cur_iter=cur_iter)
        if len(means) > 1:
            storage.put_scalars(cur_iter=cur_iter, **means)

    def state_dict(self) -> dict[str, Any]:
        """The state of the loop and of the optimizer."""
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state."""
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])
