"""Samplers that divide the samples among the processes of a job."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from detectron2.utils import comm
from torch.utils.data import Sampler


class TrainingSampler(Sampler):
    """An endless sequence of shuffled passes over a data set.

    Process r of n takes every n-th index, from the r-th on.

    Args:
        size: Length of the data set.
        shuffle: Shuffle each pass.
        seed: Equal on all processes. None: rank 0 draws one, and every process must be here to
            receive it.

    Raises:
        TypeError: ``size`` is no int.
        ValueError: ``size`` is not positive.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None) -> None:
        if not isinstance(size, int):
            raise TypeError(f"TrainingSampler needs an int as size, got {type(size).__name__}.")
        if size <= 0:
            raise ValueError(f"TrainingSampler needs a positive size, got {size}.")
        self._size = size
        self._shuffle = shuffle
        self._seed = int(comm.shared_random_seed() if seed is None else seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            if self._shuffle:
                yield from torch.randperm(self._size, generator=generator).tolist()
            else:
                yield from range(self._size)


class InferenceSampler(Sampler):
    """Every index once: each process takes a run of neighbours.

    The first processes take one more where the size does not divide.

    Args:
        size: Length of the data set, at least 1.

    Raises:
        AssertionError: ``size`` is not positive.
    """

    def __init__(self, size: int) -> None:
        if size <= 0:
            raise AssertionError(f"InferenceSampler needs a positive size, got {size}.")
        self._size = size
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()
        self._local_indices = self._get_local_indices(size, self._world_size, self._rank)

    @staticmethod
    def _get_local_indices(total_size: int, world_size: int, rank: int) -> range:
        share, rest = divmod(total_size, world_size)
        begin = rank * share + min(rank, rest)
        return range(begin, begin + share + int(rank < rest))

    def __iter__(self) -> Iterator[int]:
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)
