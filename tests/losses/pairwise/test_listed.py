"""Sums over lists of pairs against a loop, and by gradient check."""

from __future__ import annotations

import pytest
import torch

from maskfreevis_ext.losses.affinities import AffinitySettings, compute_affinities
from maskfreevis_ext.losses.pairwise import dense, listed
from maskfreevis_ext.losses.pairwise.dense import same_label_nll
from maskfreevis_ext.losses.pairwise.listed import CellPairs, listed_pairwise_sums
from maskfreevis_ext.losses.scene import BoxObjects


def _lists() -> list[CellPairs]:
    lists = []
    for count in (7, 30, 0):
        cells = torch.randint(0, 24, (2, count))
        lists.append(CellPairs(cells[0], cells[1], torch.rand(count, dtype=torch.float64)))
    return lists


def test_sums_equal_a_loop() -> None:
    logits, lists = torch.randn(3, 2, 3, 4, dtype=torch.float64) * 3, _lists()
    sums = listed_pairwise_sums(logits, lists)
    assert sums.shape == (3, 3)
    for got, pairs in zip(sums, lists, strict=True):
        expected = torch.zeros(3, dtype=torch.float64)
        for p, q, weight in zip(pairs.first, pairs.second, pairs.weight, strict=True):
            a, b = logits.flatten(1)[:, p].sigmoid(), logits.flatten(1)[:, q].sigmoid()
            expected -= weight * (a * b + (1 - a) * (1 - b)).log()
        torch.testing.assert_close(got, expected)


def test_sums_gradcheck() -> None:
    lists = _lists()
    logits = torch.randn(2, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: listed_pairwise_sums(x, lists), (logits,))


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_sure_labels_stay_finite(size: float) -> None:
    logits = torch.tensor([[size, size, -size, 0.0]], requires_grad=True)
    pairs = CellPairs(torch.tensor([0, 0, 3]), torch.tensor([1, 2, 3]), torch.ones(3))
    (value,) = listed_pairwise_sums(logits, [pairs])
    value.sum().backward()
    # equal and sure: 0; opposite: the smaller logit; undecided with itself: ln 2
    assert float(value.detach()) == pytest.approx(size, rel=1e-2)
    assert torch.isfinite(logits.grad).all()


def test_sure_equal_cells_cost_what_the_stable_form_says() -> None:
    """Float32 to 1e-5 of float64, also where log(1 + e^x) of large logits would cancel."""
    logits = torch.linspace(-1500, 1500, 301)[None]
    cells = torch.cartesian_prod(torch.arange(301), torch.arange(301))[::97]
    lists = [CellPairs(pair[:1], pair[1:], torch.ones(1)) for pair in cells]
    wide = [CellPairs(pair[:1], pair[1:], torch.ones(1).double()) for pair in cells]
    got = listed_pairwise_sums(logits, lists)
    expected = listed_pairwise_sums(logits.double(), wide).float()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    by_map = same_label_nll(logits[0, cells[:, 0]], logits[0, cells[:, 1]])
    torch.testing.assert_close(got[:, 0], by_map, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["spatial", "temporal"])
@pytest.mark.parametrize("same", [True, False], ids=["equal normalizers", "one per output"])
def test_every_output_is_divided_by_its_own_normalizers(kind: str, same: bool) -> None:
    """They differ between outputs where another process has more objects than queries."""
    torch.manual_seed(0)
    frames = torch.rand(1, 3, 3, 32, 48) * 20
    objects = BoxObjects(
        boxes=torch.tensor([[4.0, 4, 28, 24], [16.0, 0, 48, 30]])[:, None].repeat(1, 3, 1),
        clips=torch.zeros(2, dtype=torch.int64),
        affinities=compute_affinities(frames, [(32, 48)], 4, AffinitySettings()),
        map_size=(8, 12),
        stride=4,
    )
    as_lists = getattr(listed, f"{kind}_pairs")(objects)
    sums_of_maps = getattr(dense, f"{kind}_pairwise_sums")
    as_maps = getattr(dense, f"{kind}_pairs")(objects, sums_of_maps)
    logits, is_matched = torch.randn(4, 2, 3, 8, 12), torch.ones(4, 2)
    normalizers = as_lists.counts(is_matched).clone()
    if not same:
        normalizers *= torch.tensor([[1.0], [0.5], [0.5], [2.0]])
    got = as_lists.sums(logits, is_matched, normalizers)
    torch.testing.assert_close(got, as_maps.sums(logits, is_matched, normalizers))
    got = as_lists.by_object(logits, normalizers)
    torch.testing.assert_close(got, as_maps.by_object(logits, normalizers))
