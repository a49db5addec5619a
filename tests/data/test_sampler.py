"""The order of samples: a function of seed and position, with the asked frequencies."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from maskfreevis_ext.data.sampler import StatelessSampler, hash_numbers


def _take(iterable, count):
    return list(itertools.islice(iterable, count))


def _sampler(sizes=(5, 3), ratios=(1.0, 0.75), seed=3, **more):
    return StatelessSampler([[0] * size for size in sizes], ratios, seed, **more)


def test_order_is_the_same_each_time_and_another_for_another_seed():
    assert _take(_sampler(), 9000) == _take(_sampler(), 9000)
    assert _take(_sampler(), 50) != _take(_sampler(seed=4), 50)


def test_frequencies_are_those_of_the_ratios():
    draws = _take(_sampler((5, 3, 9), (1.0, 0.75, 2.0)), 30_000)
    counts = Counter(draw.dataset for draw in draws)
    for dataset, ratio in enumerate((1.0, 0.75, 2.0)):
        assert counts[dataset] / 30_000 == pytest.approx(ratio / 3.75, abs=0.01)


def test_each_pass_gives_every_element_once_in_another_order():
    of_first = [draw.element for draw in _take(_sampler((50, 3)), 10_000) if draw.dataset == 0]
    passes = [of_first[i : i + 50] for i in range(0, 4000, 50)]
    assert all(sorted(one) == list(range(50)) for one in passes)
    assert len({tuple(one) for one in passes}) == len(passes)


def test_processes_share_the_samples_of_one():
    alone = _take(_sampler().draws(), 9000)
    parts = [_take(_sampler(rank=rank, world_size=3).draws(), 3000) for rank in range(3)]
    assert sorted(draw for part in parts for draw in part) == alone


def test_seeds_of_samples_differ_and_are_small():
    seeds = [draw.seed for draw in _take(_sampler(), 5000)]
    assert len(set(seeds)) == 5000
    assert 0 <= min(seeds) <= max(seeds) < 2**31


@pytest.mark.parametrize("start", [1, 7, 700])
def test_a_later_start_continues_the_same_batches(start):
    kinds = [[i % 2 for i in range(7)], [2] * 4]
    whole = StatelessSampler(kinds, (1, 1), 5, batch_size=3)
    later = StatelessSampler(kinds, (1, 1), 5, batch_size=3)
    later.start_at(start)
    assert _take(later, 30) == _take(whole, 3 * start + 30)[3 * start :]


def test_batches_hold_one_kind():
    kinds = [["wide", "tall", "wide"], ["image"] * 4]
    sampler = StatelessSampler(kinds, (1, 2), 0, batch_size=4)
    seen = set()
    for batch in _take(sampler.batches(), 200):
        assert len(batch) == 4
        found = {kinds[draw.dataset][draw.element] for draw in batch}
        assert len(found) == 1
        seen |= found
    assert seen == {"wide", "tall", "image"}


def test_hash_is_uniform_and_differs_between_purposes():
    numbers = np.arange(100_000)
    for purpose in (0, 1):
        values = hash_numbers(9, numbers, purpose) / 2.0**64
        assert np.histogram(values, bins=10, range=(0, 1))[0] == pytest.approx(10_000, rel=0.05)
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.01
    both = [hash_numbers(9, numbers, purpose) / 2.0**64 for purpose in (0, 1)]
    assert abs(np.corrcoef(*both)[0, 1]) < 0.01


@pytest.mark.parametrize(
    ("kinds", "ratios", "seed", "batch"),
    [
        ([], [], 0, 1),
        ([[]], [1], 0, 1),
        ([[0]], [0], 0, 1),
        ([[0]], [1], -1, 1),
        ([[0]], [1], 0, 0),
    ],
)
def test_bad_arguments_are_refused(kinds, ratios, seed, batch):
    with pytest.raises(ValueError, match="Expected data sets that are not empty"):
        StatelessSampler(kinds, ratios, seed, batch)
