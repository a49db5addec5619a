"""The protocol of evaluators, and the loop that runs a model over a data set."""

from __future__ import annotations

import datetime
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from detectron2.utils.comm import get_world_size, is_main_process
from torch import nn
from torch.utils.data import DataLoader


class DatasetEvaluator:
    """Collects the outputs of a model for a data set, and computes scores."""

    def reset(self) -> None:
        """Forget what was collected."""

    def process(self, inputs: list[Any], outputs: list[Any]) -> None:
        """Take one batch of inputs and the model's outputs for it."""

    def evaluate(self) -> dict[str, Any] | None:
        """Scores as task -> metric -> number; processes other than rank 0 may return None."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one.

    Args:
        evaluators: They see the same outputs; no two of them may report the same task.
    """

    def __init__(self, evaluators: list[DatasetEvaluator]) -> None:
        super().__init__()
        self._evaluators = evaluators

    def reset(self) -> None:
        """Reset all evaluators."""
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[Any], outputs: list[Any]) -> None:
        """Give a batch to all evaluators."""
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any]:
        """The results of all evaluators."""
        results: OrderedDict[str, Any] = OrderedDict()
        for evaluator in self._evaluators:
            result = evaluator.evaluate()
            if is_main_process() and result is not None:
                for task, scores in result.items():
                    assert task not in results, f"Two evaluators report {task}."
                    results[task] = scores
        return results


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and back into its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class _Stopwatch:
    """Seconds of loading, computing and evaluating, without the first (warm-up) batches."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.warmup = min(5, total - 1)
        self.done = 0
        self.restart()

    def restart(self) -> None:
        """Forget what was measured."""
        self.begin = self.last = self.logged = time.perf_counter()
        self.data = self.compute = self.evaluate = 0.0

    def lap(self) -> float:
        """Seconds since the last call."""
        now = time.perf_counter()
        elapsed, self.last = now - self.last, now
        return elapsed

    def log_progress(self, logger: logging.Logger) -> None:
        """Log where the inference stands, at most every 5 seconds."""
        count = self.done - self.warmup if self.done > self.warmup else self.done
        total = (time.perf_counter() - self.begin) / count
        if self.last - self.logged < 5:
            return
        self.logged = self.last
        eta = datetime.timedelta(seconds=int(total * (self.total - self.done)))
        logger.info(
            f"Inference done {self.done}/{self.total}. "
            f"Dataloading: {self.data / count:.4f} s/iter. "
            f"Inference: {self.compute / count:.4f} s/iter. "
            f"Eval: {self.evaluate / count:.4f} s/iter. "
            f"Total: {total:.4f} s/iter. ETA={eta}"
        )

    def log_total(self, logger: logging.Logger) -> None:
        """Log the time of all batches."""
        devices, count = get_world_size(), max(self.total - self.warmup, 1)
        elapsed = time.perf_counter() - self.begin
        logger.info(
            "Total inference time: %s (%.6f s / iter per device, on %d devices)",
            datetime.timedelta(seconds=elapsed),
            elapsed / count,
            devices,
        )
        logger.info(
            "Total inference pure compute time: %s (%.6f s / iter per device, on %d devices)",
            datetime.timedelta(seconds=int(self.compute)),
            self.compute / count,
            devices,
        )


def inference_on_dataset(
    model: Callable[[Any], Any],
    data_loader: DataLoader,
    evaluator: DatasetEvaluator,
) -> dict[str, Any]:
    """Run a model over a data set and evaluate its outputs. Progress and speed are logged.

    Args:
        model: Takes a batch; a module is put into eval mode meanwhile.
        data_loader: Batches, with a length.
        evaluator: Collects the outputs.

    Returns:
        What the evaluator returns; an empty dict where it returns nothing.
    """
    logger = logging.getLogger(__name__)
    total = len(data_loader)
    logger.info("Start inference on %d batches", total)
    evaluator.reset()
    mode = inference_context(model) if isinstance(model, nn.Module) else nullcontext()
    watch = _Stopwatch(total)
    with mode, torch.no_grad():
        for index, inputs in enumerate(data_loader):
            watch.data += watch.lap()
            if index == watch.warmup:
                watch.restart()
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            watch.compute += watch.lap()
            evaluator.process(inputs, outputs)
            watch.evaluate += watch.lap()
            watch.done = index + 1
            watch.log_progress(logger)
    watch.log_total(logger)
    results = evaluator.evaluate()
    return {} if results is None else results
