"""Torch data sets over lists, with a function that maps every element."""

from __future__ import annotations

import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

_logger = logging.getLogger(__name__)


class DatasetFromList(Dataset):
    """A list as a torch data set; every read gives a fresh copy of an element.

    The elements are bytes in one tensor, which worker processes share. Python objects in a list
    would be copied to every worker over time, as each read changes a reference count.

    Args:
        lst: The elements.
    """

    def __init__(self, lst: list[Any]) -> None:
        packed = [np.frombuffer(pickle.dumps(element, -1), dtype=np.uint8) for element in lst]
        self._ends = torch.from_numpy(np.cumsum([len(data) for data in packed], dtype=np.int64))
        self._data = torch.from_numpy(np.concatenate(packed)) if packed else torch.empty(0)
        _logger.info("%d samples take %.2f MiB", len(packed), len(self._data) / 2**20)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, idx: int) -> Any:
        end = int(self._ends[idx])
        start = int(self._ends[idx - 1]) if idx != 0 else 0
        # Bytes that this process wrote itself, never a file.
        return pickle.loads(memoryview(self._data[start:end].numpy()))  # noqa: S301


class MapDataset(Dataset):
    """Applies a function to every element of a data set.

    Where the function returns None, another element is tried, at random but in an order that is
    always the same.

    Args:
        dataset: The elements, with a length and an index.
        map_func: Element -> sample, or None for an element that cannot be used.
    """

    def __init__(self, dataset: Any, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = map_func
        self._rng = random.Random(42)  # noqa: S311
        self._fallback_candidates = set(range(len(dataset)))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int) -> Any:
        current, failures = int(idx), 0
        while True:
            sample = self._map_func(self._dataset[current])
            if sample is not None:
                self._fallback_candidates.add(current)
                return sample
            failures += 1
            self._fallback_candidates.discard(current)
            current = self._rng.sample(list(self._fallback_candidates), k=1)[0]
            if failures >= 3:
                _logger.warning("No sample for element %d after %d others.", idx, failures)


class ToIterableDataset(IterableDataset):
    """The elements of a data set in the order of a sampler.

    Loader workers take turns by whole batches, so that the order of the data does not depend on
    their number.

    Args:
        dataset: The elements, with a length and an index.
        sampler: Gives the same indices each time it is iterated over.
        shard_chunk_size: Samples of a batch.
    """

    def __init__(self, dataset: Dataset, sampler: Sampler, shard_chunk_size: int) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.shard_chunk_size = shard_chunk_size

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        workers, own = (1, 0) if worker is None else (worker.num_workers, worker.id)
        for position, index in enumerate(self.sampler):
            if (position // self.shard_chunk_size) % workers == own:
                yield self.dataset[index]


class AspectRatioGroupedDataset(IterableDataset):
    """Batches of images that are all wide, or all tall.

    Args:
        dataset: Gives dicts with ``width`` and ``height``.
        batch_size: Samples per batch.
    """

    def __init__(self, dataset: Iterable[dict[str, Any]], batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self._buckets: dict[bool, list[Any]] = {False: [], True: []}

    def __iter__(self) -> Iterator[list[Any]]:
        for sample in self.dataset:
            is_wide = sample["width"] > sample["height"]
            self._buckets[is_wide].append(sample)
            if len(self._buckets[is_wide]) == self.batch_size:
                batch, self._buckets[is_wide] = self._buckets[is_wide], []
                yield batch
