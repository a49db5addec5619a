"""What each worker process of a loader is doing, where the main process can read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

_BYTES = 1024  # of a note
#: Where its text begins: behind its length, in two bytes, and whether it is about the present.
_TEXT = 3

#: The notes of the loader that this process works for.
_current: WorkerNotes | None = None


class WorkerNotes:
    """A line of text for each worker, in memory that all processes of a loader share.

    Args:
        count: Number of workers.
    """

    def __init__(self, count: int) -> None:
        self._memory = torch.zeros(count, _BYTES, dtype=torch.uint8).share_memory_()

    def write(self, worker: int, text: str) -> None:
        """Replace the note of a worker; a long one loses its end.

        Args:
            worker: Number of the worker.
            text: The note.
        """
        data = np.frombuffer(text.encode("utf-8", "replace")[: _BYTES - _TEXT], dtype=np.uint8)
        line = self._memory[worker].numpy()
        line[:_TEXT] = 0
        line[_TEXT : _TEXT + len(data)] = data
        line[:_TEXT] = len(data) >> 8, len(data) & 255, 1

    def finish(self, worker: int) -> None:
        """Mark the note of a worker as one about the past.

        Args:
            worker: Number of the worker.
        """
        self._memory[worker, _TEXT - 1] = 0

    def is_busy(self, worker: int) -> bool:
        """Whether the note of a worker is about what it is doing now.

        Args:
            worker: Number of the worker.
        """
        return bool(self._memory[worker, _TEXT - 1])

    def read(self, worker: int) -> str:
        """The last note of a worker; empty before the first one.

        Args:
            worker: Number of the worker.
        """
        line = self._memory[worker].numpy()
        length = int(line[0]) << 8 | int(line[1])
        return line[_TEXT : _TEXT + length].tobytes().decode("utf-8", "replace")


class Noted:
    """A mapper that says in a note which video it is working on.

    Args:
        mapper: Dataset dict -> sample.
        notes: Where the notes are written; only workers write.
    """

    def __init__(self, mapper: Callable[[dict[str, Any]], Any], notes: WorkerNotes) -> None:
        self._mapper, self._notes = mapper, notes

    def __call__(self, dataset_dict: dict[str, Any]) -> Any:
        """Make a sample."""
        global _current
        info = get_worker_info()
        if info is None:
            return self._mapper(dataset_dict)
        _current = self._notes
        first, video_id = dataset_dict["file_names"][0], dataset_dict["video_id"]
        note(f"{first} and further frames of video {video_id}")
        sample = self._mapper(dataset_dict)
        self._notes.finish(info.id)
        return sample


def note(text: str) -> None:
    """Say what this process is about to do, if it is the worker of a loader.

    Args:
        text: Such as the file that is going to be read.
    """
    info = get_worker_info()
    if _current is not None and info is not None:
        _current.write(info.id, text)
