"""The order of training samples: a function of the seed and of the position alone.

Sample n of a training has a data set, an element of it, and a seed for all random numbers that its
mapper draws. None of them depends on what was read before, on the number of workers, or on the
state of a random generator, so that a training that is resumed goes on with the same samples.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

#: Samples whose data sets are drawn in one go.
_BLOCK = 4096


class Draw(NamedTuple):
    """One sample.

    Attributes:
        number: Position among the samples of all processes.
        dataset: Index of its data set.
        element: Its index in the data set.
        seed: Seed of the random numbers of its mapper, in [0, 2**31).
    """

    number: int
    dataset: int
    element: int
    seed: int


def hash_numbers(seed: int, numbers: np.ndarray, purpose: int) -> np.ndarray:
    """Random 64-bit numbers, each a function of seed, number and purpose (SplitMix64).

    Args:
        seed: >= 0.
        numbers: (N,), >= 0.
        purpose: Independent numbers for independent uses, >= 0.

    Returns:
        (N,) uint64.
    """
    mask = (1 << 64) - 1
    start = (seed * 0x9E3779B97F4A7C15 + purpose * 0xD1B54A32D192ED03) & mask
    with np.errstate(over="ignore"):
        z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)) * 2:
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        return z ^ (z >> np.uint64(31))


class StatelessSampler(Sampler[Draw]):
    """Endless samples of several data sets, in batches of one kind.

    The data set of each sample is drawn with the given probabilities. Within a data set, each pass
    gives every element once, in another order. Process r of n takes the samples r, r + n, …; a
    batch is complete as soon as ``batch_size`` samples of one kind have come together.
    """

    def __init__(
        self,
        kinds: Sequence[Sequence[Hashable]],
        ratios: Sequence[float],
        seed: int,
        batch_size: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Set up the order.

        Args:
            kinds: For each data set the kind of each of its elements; samples of different kinds do
                not share a batch.
            ratios: Relative frequency of each data set, > 0.
            seed: >= 0, equal on all processes.
            batch_size: Samples of a batch of this process.
            rank: r.
            world_size: n.

        Raises:
            ValueError: A number is out of range, or a data set is empty.
        """
        is_good = len(kinds) == len(ratios) > 0 and all(len(one) > 0 for one in kinds)
        if not is_good or min(ratios) <= 0 or seed < 0 or batch_size < 1:
            raise ValueError(
                "Expected data sets that are not empty, a positive ratio for each, a seed >= 0 and"
                f" batches of at least 1, got {[len(one) for one in kinds]}, {list(ratios)}, {seed}"
                f" and {batch_size}."
            )
        self.kinds = [list(one) for one in kinds]
        self.bounds = np.cumsum(np.asarray(ratios, dtype=np.float64) / sum(ratios))[:-1]
        self.seed, self.batch_size = seed, batch_size
        self.rank, self.world_size = rank, world_size
        self._start = 0

    def start_at(self, batch: int) -> None:
        """Let later iterations begin with this batch of the process, counted from 0."""
        self._start = batch

    def __iter__(self) -> Iterator[Draw]:
        for batch in itertools.islice(self.batches(), self._start, None):
            yield from batch

    def batches(self) -> Iterator[list[Draw]]:
        """All batches of this process from the first on."""
        waiting: dict[Hashable, list[Draw]] = defaultdict(list)
        for draw in self.draws():
            kind = self.kinds[draw.dataset][draw.element]
            waiting[kind].append(draw)
            if len(waiting[kind]) == self.batch_size:
                yield waiting.pop(kind)

    def draws(self) -> Iterator[Draw]:
        """All samples of this process from the first on."""
        used = [0] * len(self.kinds)  # samples of each data set before the block
        for first in itertools.count(0, _BLOCK):
            numbers = np.arange(first, first + _BLOCK, dtype=np.int64)
            uniform = hash_numbers(self.seed, numbers, 0) / 2.0**64
            datasets = np.searchsorted(self.bounds, uniform, side="right")
            seeds = hash_numbers(self.seed, numbers, 1) >> np.uint64(33)
            indices = np.empty(_BLOCK, dtype=np.int64)
            for d in range(len(self.kinds)):
                places = np.flatnonzero(datasets == d)
                indices[places] = self._elements(d, used[d], len(places))
                used[d] += len(places)
            for i in range((self.rank - first) % self.world_size, _BLOCK, self.world_size):
                yield Draw(first + i, int(datasets[i]), int(indices[i]), int(seeds[i]))

    def _elements(self, dataset: int, first: int, count: int) -> np.ndarray:
        """Elements of the samples ``first`` to ``first + count`` of a data set."""
        size = len(self.kinds[dataset])
        passes = range(first // size, (first + count) // size + 1)
        orders = [
            np.random.default_rng([self.seed, dataset, one]).permutation(size) for one in passes
        ]
        begin = first - passes[0] * size
        return np.concatenate(orders)[begin : begin + count]
