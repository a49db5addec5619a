"""Scalars and images of a training, and the writers that show them."""

from __future__ import annotations

import datetime
import json
import logging
import os
from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from fvcore.common.history_buffer import HistoryBuffer

_active: list[EventStorage] = []


def get_event_storage() -> EventStorage:
    """The innermost active storage.

    Raises:
        AssertionError: Not inside ``with EventStorage(...)``.
    """
    if not _active:
        raise AssertionError("get_event_storage() works only inside `with EventStorage(...)`.")
    return _active[-1]


class EventWriter:
    """Base class of writers, which show the new scalars and images of the active storage."""

    def write(self) -> None:
        """Write the scalars and images that came since the last call.

        Raises:
            NotImplementedError: The subclass does not define it.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release files."""


class JSONWriter(EventWriter):
    """Appends one JSON object per iteration, with its scalars and ``iteration``, to a file.

    Args:
        json_file: The file.
        window_size: Iterations of the median filter for scalars that want smoothing.
    """

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        self._file_handle = PathManager.open(json_file, "a")
        self._window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        """Write the scalars that came since the last call, grouped by iteration."""
        rows: dict[int, dict[str, float]] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                rows[iteration][name] = value
        if rows:
            self._last_write = max(rows)
        for iteration, scalars in rows.items():
            line = json.dumps({**scalars, "iteration": iteration}, sort_keys=True)
            self._file_handle.write(line + "\n")
        self._file_handle.flush()
        try:
            os.fsync(self._file_handle.fileno())
        except AttributeError:
            pass  # a stream that is not a file of this machine

    def close(self) -> None:
        """Close the file."""
        self._file_handle.close()


class TensorboardXWriter(EventWriter):
    """Writes scalars and images for TensorBoard.

    Args:
        log_dir: Folder of the event files.
        window_size: Iterations of the median filter for scalars that want smoothing.
        **kwargs: Further arguments of ``torch.utils.tensorboard.SummaryWriter``.
    """

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        self._window_size = window_size
        self._writer_args = {"log_dir": log_dir, **kwargs}
        self._last_write = -1

    @cached_property
    def _writer(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # slow, and not needed by every job

        return SummaryWriter(**self._writer_args)

    def write(self) -> None:
        """Write the scalars and images that came since the last call, then drop the images."""
        storage = get_event_storage()
        newest = self._last_write
        latest = storage.latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                self._writer.add_scalar(name, value, iteration)
                newest = max(newest, iteration)
        self._last_write = newest

        for name, image, iteration in storage._vis_data:
            self._writer.add_image(name, image, iteration)
        storage.clear_images()

    def close(self) -> None:
        """Close the event file, if one was opened."""
        if "_writer" in self.__dict__:
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line: ETA, iteration, losses, ``[metric]`` scalars, times, rate and GPU memory.

    Args:
        max_iter: Last iteration, for the ETA. None: no ETA.
        window_size: Iterations of the median filter.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size

    def _eta(self, storage: EventStorage) -> str:
        if self._max_iter is None or "time" not in storage.histories():
            return ""
        left = self._max_iter - storage.iter - 1
        seconds = storage.history("time").median(1000) * left
        storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        return str(datetime.timedelta(seconds=int(seconds)))

    def _medians(self, storage: EventStorage, part: str) -> str:
        return "  ".join(
            f"{name}: {buffer.median(storage.count_samples(name, self._window_size)):.4g}"
            for name, buffer in storage.histories().items()
            if part in name
        )

    def _times(self, storage: EventStorage) -> str:
        text = ""
        if "time" in storage.histories():
            history = storage.history("time")
            text += f"time: {history.global_avg():.4f}  last_time: {history.latest():.4f}  "
        if "data_time" in storage.histories():
            history = storage.history("data_time")
            average = history.avg(storage.count_samples("data_time", self._window_size))
            text += f"data_time: {average:.4f}  last_data_time: {history.latest():.4f}  "
        return text

    def write(self) -> None:
        """Log the line, except after the last iteration."""
        storage = get_event_storage()
        if storage.iter == self._max_iter:
            return
        times = self._times(storage)
        rate = "N/A"
        if "lr" in storage.histories():
            rate = f"{storage.history('lr').latest():.5g}"
        memory = ""
        if torch.cuda.is_available():
            memory = f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M"
        eta = self._eta(storage)
        self.logger.info(
            " %siter: %d  %s  %s  %s lr: %s  %s",
            f"eta: {eta}  " if eta else "",
            storage.iter,
            self._medians(storage, "loss"),
            self._medians(storage, "[metric]"),
            times,
            rate,
            memory,
        )


class EventStorage:
    """Holds the scalars of a training, and its images until a writer takes them.

    Args:
        start_iter: Iteration to start from.

    Attributes:
        iter: The current iteration.
    """

    def __init__(self, start_iter: int = 0) -> None:
        self._history: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._smoothing_hints: dict[str, bool] = {}
        self._latest_scalars: dict[str, tuple[float, int]] = {}
        self.iter = start_iter
        self._vis_data: list[tuple[str, torch.Tensor | np.ndarray, int]] = []

    def put_image(self, img_name: str, img_tensor: torch.Tensor | np.ndarray) -> None:
        """Keep an RGB image [3, H, W] for TensorBoard: uint8, or float in [0, 1]."""
        self._vis_data.append((img_name, img_tensor, self.iter))

    def put_scalar(
        self, name: str, value: Any, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Add a scalar.

        Args:
            name: Its name.
            value: Anything that ``float`` takes.
            smoothing_hint: Writers should show a median of the last values. The same at every call.
            cur_iter: Iteration it belongs to; by default the current one.

        Raises:
            AssertionError: The scalar was put with another ``smoothing_hint`` before.
        """
        iteration = self.iter if cur_iter is None else cur_iter
        value = float(value)
        self._history[name].update(value, iteration)
        self._latest_scalars[name] = (value, iteration)
        if self._smoothing_hints.setdefault(name, smoothing_hint) != smoothing_hint:
            raise AssertionError(f"Scalar {name} was put with another smoothing_hint before.")

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: Any
    ) -> None:
        """Add several scalars, given as keywords."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def history(self, name: str) -> HistoryBuffer:
        """All values of one scalar.

        Raises:
            KeyError: There is no such scalar.
        """
        if name not in self._history:
            raise KeyError(f"No scalar named {name}.")
        return self._history[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """All values of all scalars."""
        return self._history

    def latest(self) -> dict[str, tuple[float, int]]:
        """Name -> (last value, its iteration)."""
        return self._latest_scalars

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Like ``latest``, with medians of ``window_size`` iterations where wanted."""
        result = {}
        for name, (value, iteration) in self._latest_scalars.items():
            if self._smoothing_hints[name]:
                value = self._history[name].median(self.count_samples(name, window_size))
            result[name] = (value, iteration)
        return result

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """Number of values of a scalar in its last ``window_size`` iterations."""
        values = self._history[name].values()
        newest = values[-1][1]
        count = 0
        for _, iteration in reversed(values):
            if iteration <= newest - window_size:
                break
            count += 1
        return count

    def __enter__(self) -> EventStorage:
        _active.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert _active[-1] is self
        _active.pop()

    def clear_images(self) -> None:
        """Drop the images."""
        self._vis_data = []
