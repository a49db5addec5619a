"""Writers of a training's figures to files, which fit a training that is killed and goes on.

A disk that is full costs figures, never the training. What the figures are smoothed over is part of
a checkpoint, so that ``metrics.json`` is the same as that of a training that was not killed.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from detectron2.utils.events import (
    EventStorage,
    EventWriter,
    TensorboardXWriter,
    get_event_storage,
)

from maskfreevis_ext.files import finite_or_none

logger = logging.getLogger(__name__)

#: Iterations that figures are smoothed over; Detectron2's writers have the same.
WINDOW = 20
#: Name of the sum of all losses, which every row of a training step has.
_TOTAL = "total_loss"


def storage_state(storage: EventStorage) -> dict[str, Any]:
    """The figures of the last ``WINDOW`` iterations, as plain values for a checkpoint.

    Args:
        storage: Of the training.
    """
    return {
        name: {
            "values": [list(pair) for pair in buffer.values()[-storage.count_samples(name) :]],
            "smooth": storage._smoothing_hints[name],
        }
        for name, buffer in storage.histories().items()
    }


def restore_storage(storage: EventStorage, state: dict[str, Any]) -> None:
    """Put the figures of ``storage_state`` into a new storage."""
    for name, entry in state.items():
        for value, iteration in entry["values"]:
            storage.put_scalar(name, value, smoothing_hint=entry["smooth"], cur_iter=int(iteration))


class MetricsWriter(EventWriter):
    """Appends one strict JSON object per iteration to ``metrics.json``; NaN and Inf are null.

    Rows that cannot be written (the disk is full) are kept, and written as soon as there is room.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._last_write = -1
        self._waiting: list[bytes] = []
        self._is_failing = False
        self._is_whole = False  # whether the file is known to end with a whole row

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the newest training in the file; a row that a kill has cut is left out."""
        return [row for _, row in self._newest()]

    def go_on_from(self, step: int, keep_last_evaluation: bool = False) -> None:
        """Drop the rows of a killed training that will be written again, and what was cut.

        Args:
            step: The first training step to come.
            keep_last_evaluation: The checkpoint was the last of a finished training: a row with
                this number that has no loss is its last evaluation.
        """
        last = -1
        for start, row in self._newest():
            iteration = row["iteration"]
            if iteration == step and keep_last_evaluation and _TOTAL not in row:
                keep_last_evaluation = False
            elif iteration >= step:
                os.truncate(self.path, start)
                break
            last = max(last, min(iteration, step - 1))
        self._last_write = last

    def write(self) -> None:
        """Write the figures that came since the last call, grouped by iteration."""
        rows: dict[int, dict[str, Any]] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(WINDOW)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                rows[iteration][name] = value
        self._last_write = max(rows, default=self._last_write)
        for iteration in sorted(rows):
            row = finite_or_none({**rows[iteration], "iteration": iteration})
            self._waiting.append(f"{json.dumps(row, sort_keys=True, allow_nan=False)}\n".encode())
        if self._waiting:
            self._append()

    @property
    def last_iteration(self) -> int:
        """Iteration of the last row; -1 without any."""
        return self._last_write

    def _append(self) -> None:
        try:
            self._cut_unfinished_row()
            with open(self.path, "ab") as file:
                size = file.tell()
                try:
                    file.write(b"".join(self._waiting))
                    file.flush()
                    os.fsync(file)
                except BaseException:
                    os.truncate(self.path, size)
                    raise
        except OSError as error:
            if not self._is_failing:
                logger.warning(
                    "%s: could not be written (%s). Training goes on; the rows are written when"
                    " there is room.",
                    self.path,
                    error.strerror or error,
                )
            self._is_failing = True
            self._is_whole = False
        else:
            self._waiting.clear()
            self._is_failing = False

    def _cut_unfinished_row(self) -> None:
        """Remove a row that a kill has cut, so that the next one does not stick to it."""
        if self._is_whole or not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        self._is_whole = True

    def _newest(self) -> list[tuple[int, dict[str, Any]]]:
        """Place and content of the rows since the last one that begins a new training."""
        self._cut_unfinished_row()
        found: list[tuple[int, dict[str, Any]]] = []
        place, last_step = 0, -1
        for line in self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else ():
            row = parse_row(line)
            if row is not None:
                if _TOTAL in row:
                    if row["iteration"] < last_step:
                        found.clear()
                    last_step = row["iteration"]
                found.append((place, row))
            place += len(line)
        return found


def parse_row(line: bytes | str) -> dict[str, Any] | None:
    """A line of ``metrics.json``; None where it is no whole row.

    Args:
        line: The line.
    """
    try:
        row = json.loads(line)
    except ValueError:
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("iteration"), int)
    return row if is_row else None


class TensorBoardWriter(TensorboardXWriter):
    """Detectron2's writer for TensorBoard; after an error of the disk it writes nothing more.

    Args:
        log_dir: Folder of the event files.
    """

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir, WINDOW)
        self._is_off = False

    def go_on_from(self, step: int, last_write: int) -> None:
        """Let TensorBoard hide what a killed training has written of steps to come.

        Args:
            step: The first training step to come.
            last_write: Iteration up to which figures are written.
        """
        self._writer_args["purge_step"] = step
        self._last_write = last_write

    def write(self) -> None:
        """Write new figures and images."""
        if not self._is_off:
            try:
                super().write()
            except OSError as error:
                self._turn_off(error)
        get_event_storage().clear_images()  # otherwise they would use up the memory

    def close(self) -> None:
        """Close the event file, if one was opened."""
        try:
            super().close()
        except OSError as error:
            if not self._is_off:
                self._turn_off(error)

    def _turn_off(self, error: OSError) -> None:
        self._is_off = True
        logger.warning(
            "The files for TensorBoard could not be written (%s). Training goes on without them;"
            " metrics.json has the figures.",
            error.strerror or error,
        )
