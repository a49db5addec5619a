"""The line that training logs every few iterations."""

from __future__ import annotations

import datetime
import logging
import re

import torch
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

logger = logging.getLogger(__name__)

#: ``loss_x_3`` is the term ``loss_x`` of auxiliary output 3; the last output has no number.
_OF_AUXILIARY_OUTPUT = re.compile(r"_\d+$")


class ConsoleWriter(EventWriter):
    """Logs iteration, remaining time, seconds per iteration, learning rate and the main losses.

    The main losses are the total and the terms of the last decoder output that are not zero. Times
    and losses are medians over the last iterations.

    Args:
        max_iter: Iteration at which the training ends.
        all_losses: Log the terms of all decoder outputs, zero or not.
        window_size: Iterations that the medians are taken over.
    """

    def __init__(self, max_iter: int, all_losses: bool = False, window_size: int = 20) -> None:
        self._max_iter = max_iter
        self._all_losses = all_losses
        self._window_size = window_size

    def write(self) -> None:
        """Log the line, except after the end of training, when it has been logged already."""
        storage = get_event_storage()
        if storage.iter >= self._max_iter:
            return
        parts = [f"iter: {storage.iter + 1}/{self._max_iter}", *self._times(storage)]
        if "lr" in storage.histories():
            parts.append(f"lr: {storage.history('lr').latest():.4g}")
        for name in self._losses(storage):
            parts.append(f"{name}: {self._median(storage, name):.4g}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        logger.info("  ".join(parts))

    def _times(self, storage: EventStorage) -> list[str]:
        """ETA and seconds per iteration; empty in the first iterations, which are not timed."""
        if "time" not in storage.histories():
            return []
        history = storage.history("time")
        seconds = history.median(1000) * (self._max_iter - storage.iter - 1)
        storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        eta = datetime.timedelta(seconds=int(seconds))
        text = f"{self._median(storage, 'time'):.4g} s/it"
        if "data_time" in storage.histories():
            text += f" (data: {self._median(storage, 'data_time'):.2g})"
        return [f"eta: {eta}", text]

    def _losses(self, storage: EventStorage) -> list[str]:
        names = [name for name in storage.histories() if name.startswith("loss_")]
        if not self._all_losses:
            names = [
                name
                for name in names
                if not _OF_AUXILIARY_OUTPUT.search(name) and self._median(storage, name) != 0
            ]
        return ["total_loss", *names] if "total_loss" in storage.histories() else names

    def _median(self, storage: EventStorage, name: str) -> float:
        window = storage.count_samples(name, self._window_size)
        return float(storage.history(name).median(window))
