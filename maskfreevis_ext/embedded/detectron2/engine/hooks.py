"""Hooks of the training loop: timing, learning rate, checkpoints, evaluation, logs."""

from __future__ import annotations

import datetime
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from detectron2.engine.train_loop import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter
from fvcore.common.checkpoint import PeriodicCheckpointer as _FvcorePeriodicCheckpointer
from fvcore.common.timer import Timer
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn
from torch.optim.lr_scheduler import LRScheduler as _TorchLRScheduler


def _duration(seconds: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=int(seconds))


class IterationTimer(HookBase):
    """Stores ``time``, the seconds of each step, and logs the speed at the end.

    It should be the first of all hooks.

    Args:
        warmup_iter: Steps at the beginning that are not counted.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        self._warmup_iter = warmup_iter
        self._step_timer = Timer()
        self._total_timer = Timer()
        self._start_time = time.perf_counter()

    def before_train(self) -> None:
        """Start the clock."""
        self._start_time = time.perf_counter()
        self._total_timer.reset()
        self._total_timer.pause()

    def before_step(self) -> None:
        """Start the step's clock."""
        self._step_timer.reset()
        self._total_timer.resume()

    def after_step(self) -> None:
        """Store the step's time."""
        if self.trainer.storage.iter - self.trainer.start_iter + 1 >= self._warmup_iter:
            self.trainer.storage.put_scalars(time=self._step_timer.seconds())
        else:
            self._start_time = time.perf_counter()
            self._total_timer.reset()
        self._total_timer.pause()

    def after_train(self) -> None:
        """Log the speed and the total time."""
        logger = logging.getLogger(__name__)
        total = time.perf_counter() - self._start_time
        in_steps = self._total_timer.seconds()
        done = self.trainer.storage.iter + 1 - self.trainer.start_iter - self._warmup_iter
        if done > 0 and in_steps > 0:
            logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                done,
                _duration(in_steps),
                in_steps / done,
            )
        logger.info(
            "Total training time: %s (%s on hooks)", _duration(total), _duration(total - in_steps)
        )


class PeriodicWriter(HookBase):
    """Lets writers write every few iterations and after the last one.

    Args:
        writers: The writers.
        period: Iterations.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        """Write, where it is time to."""
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        """Write what other hooks stored at the end, and close."""
        for writer in self._writers:
            writer.write()
            writer.close()


class PeriodicCheckpointer(_FvcorePeriodicCheckpointer, HookBase):
    """fvcore's periodic checkpointer as a hook."""

    def before_train(self) -> None:
        """Learn the last iteration."""
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        """Save, where it is time to."""
        self.step(self.trainer.iter)


class LRScheduler(HookBase):
    """Stores ``lr`` and steps the schedule after every iteration.

    Args:
        optimizer: By default the trainer's.
        scheduler: By default the trainer's.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: _TorchLRScheduler | None = None,
    ) -> None:
        self._given = optimizer, scheduler

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer in use."""
        return self._given[0] or self.trainer.optimizer

    @property
    def scheduler(self) -> _TorchLRScheduler:
        """The schedule in use."""
        return self._given[1] or self.trainer.scheduler

    def before_train(self) -> None:
        """Find the parameter group whose rate is shown."""
        self._best_param_group_id = self.get_best_param_group_id(self.optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: torch.optim.Optimizer) -> int:
        """The first group with the most parameters.

        If all have one parameter, it is the first group with the most common rate.
        """
        groups = optimizer.param_groups
        sizes = [len(group["params"]) for group in groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        """Store the rate of this iteration, and go to the next one."""
        rate = self.optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of the schedule."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of the schedule."""
        logging.getLogger(__name__).info("Loading scheduler from state_dict ...")
        self.scheduler.load_state_dict(state_dict)


class EvalHook(HookBase):
    """Evaluates every few iterations and after the last one, and stores the numbers.

    Args:
        eval_period: Iterations; 0 for after the training only.
        eval_function: Returns nested dicts of numbers, or nothing.
        eval_after_train: Evaluate after a training that reached its end.
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Mapping[str, Any] | None],
        eval_after_train: bool = True,
    ) -> None:
        self._period = eval_period
        self._func = eval_function
        self._eval_after_train = eval_after_train

    def _do_eval(self) -> None:
        results = self._func()
        if results:
            if not isinstance(results, Mapping):
                raise AssertionError(f"An evaluation returns a dict, got {results}.")
            flat = flatten_results_dict(results)
            for name, value in flat.items():
                try:
                    flat[name] = float(value)
                except Exception as error:
                    raise ValueError(f"Evaluation result {name} is no number: {value}.") from error
            self.trainer.storage.put_scalars(**flat, smoothing_hint=False)
        comm.synchronize()  # the next step would otherwise wait for the slowest evaluation

    def after_step(self) -> None:
        """Evaluate, where it is time to and this is not the last iteration."""
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._do_eval()

    def after_train(self) -> None:
        """Evaluate, unless an error ended the training."""
        if self._eval_after_train and self.trainer.iter + 1 >= self.trainer.max_iter:
            self._do_eval()
        del self._func  # it usually refers to the trainer


class PreciseBN(HookBase):
    """Replaces the running statistics of batch norms by those of many batches under fixed weights.

    Args:
        period: Iterations; 0 for after the last one only.
        model: Its batch norms that are in training mode take part.
        data_loader: Batches to use.
        num_iter: How many.
    """

    def __init__(self, period: int, model: nn.Module, data_loader: Iterable, num_iter: int) -> None:
        self._period = period
        self._model = model
        self._data_loader = data_loader
        self._num_iter = num_iter
        self._batches: Iterable | None = None

    def after_step(self) -> None:
        """Update, where it is time to."""
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self._period > 0 and done % self._period == 0):
            self.update_stats()

    def update_stats(self) -> None:
        """Compute the statistics now."""
        if not get_bn_modules(self._model):
            return
        if self._batches is None:
            self._batches = iter(self._data_loader)
        logging.getLogger(__name__).info(
            "Running precise-BN for %d iterations. This is not the training.", self._num_iter
        )
        with EventStorage():  # keeps what the model puts there out of the training's storage
            update_bn_stats(
                self._model, itertools.islice(self._batches, self._num_iter), self._num_iter
            )
