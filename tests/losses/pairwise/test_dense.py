"""Pairwise terms against the reference's values, against loops, and by gradient check."""

from __future__ import annotations

import math

import pytest
import torch

from maskfreevis_ext.losses.pairwise import dense
from maskfreevis_ext.losses.pairwise.dense import (
    same_label_nll,
    spatial_pairwise_sums,
    temporal_pairwise_sums,
)
from maskfreevis_ext.ops.neighbors import grid_offsets, half_offsets, pair_slices
from tests.helpers.golden import load_golden


def test_same_label_nll_equals_the_reference_at_extreme_logits() -> None:
    golden = load_golden("pieces_main")
    logits = torch.from_numpy(golden["pw_logits"])[:, 0]
    expected = torch.from_numpy(golden["pairwise_term"]).squeeze()
    height, width = logits.shape[-2:]
    for index, offset in enumerate(grid_offsets(1, 2, with_center=False)):
        here, there = pair_slices(offset, height, width)
        got = same_label_nll(logits[(..., *here)], logits[(..., *there)])
        wanted = expected.reshape(len(logits), 8, height, width)[:, index][(..., *here)]
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_same_label_nll_hand_values() -> None:
    logits = torch.tensor([0.0, 100.0, -100.0, 100.0])
    others = torch.tensor([5.0, 100.0, -100.0, -100.0])
    expected = torch.tensor([math.log(2), 0.0, 0.0, 100.0 - math.log(2)])
    torch.testing.assert_close(same_label_nll(logits, others), expected)


def test_same_label_nll_gradcheck() -> None:
    first = torch.randn(20, dtype=torch.float64, requires_grad=True)
    second = torch.randn(20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(same_label_nll, (first, second))


def _naive_nll(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    p, q = a.sigmoid(), b.sigmoid()
    return -(p * q + (1 - p) * (1 - q)).log()


def test_spatial_sums_equal_a_loop_over_ordered_pairs() -> None:
    num_layers, num_objects, num_frames, height, width = 2, 2, 2, 5, 6
    logits = torch.randn(num_layers, num_objects, num_frames, height, width, dtype=torch.float64)
    box_maps = torch.rand(num_objects, num_frames, height, width, dtype=torch.float64)
    offsets = half_offsets(1, 2)
    edges = []
    for offset in offsets:
        (rows, cols), _ = pair_slices(offset, height, width)
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        edges.append(torch.rand(num_objects, num_frames, *shape) > 0.4)
    sums, weights = spatial_pairwise_sums(logits, edges, offsets, box_maps)
    expected, weight = torch.zeros_like(sums), torch.zeros_like(weights)
    for (dy, dx), edge in zip(offsets, edges, strict=True):
        (rows, cols), _ = pair_slices((dy, dx), height, width)
        for n, t, i, j in edge.nonzero().tolist():
            y, x = i + rows.start, j + cols.start
            both = box_maps[n, t, y, x] + box_maps[n, t, y + dy, x + dx]
            nll = _naive_nll(logits[:, n, t, y, x], logits[:, n, t, y + dy, x + dx])
            expected[:, n] += both * nll
            weight[n] += both
    torch.testing.assert_close(sums, expected)
    torch.testing.assert_close(weights, weight)


def _temporal_case() -> tuple:
    logits = torch.randn(2, 3, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    matches = torch.rand(3, 2, 9, 5, 7) > 0.5
    regions = (torch.rand(3, 5, 7) > 0.3).double()
    return logits, matches, [(0, 1), (2, 0)], grid_offsets(1, 3, with_center=True), regions


def test_temporal_sums_equal_a_loop() -> None:
    logits, matches, pairs, offsets, regions = _temporal_case()
    sums, weights = temporal_pairwise_sums(logits, matches, pairs, offsets, regions)
    expected, weight = torch.zeros_like(sums), torch.zeros_like(weights)
    for n, e, r, y, x in matches.nonzero().tolist():
        (a, b), (dy, dx) = pairs[e], offsets[r]
        weight[n, e] += regions[n, y, x]
        if 0 <= y + dy < 5 and 0 <= x + dx < 7:
            nll = _naive_nll(logits[:, n, b, y, x], logits[:, n, a, y + dy, x + dx])
            expected[:, n, e] += nll * regions[n, y, x]
    torch.testing.assert_close(sums, expected)
    torch.testing.assert_close(weights, weight)


def test_temporal_sums_gradcheck() -> None:
    logits, *rest = _temporal_case()
    assert torch.autograd.gradcheck(lambda x: temporal_pairwise_sums(x, *rest)[0], (logits,))


def test_sure_and_equal_masks_have_no_temporal_loss_and_undecided_ones_ln_two() -> None:
    pairs, offsets = [(0, 1)], [(0, 0)]
    matches = torch.ones(1, 1, 1, 4, 4, dtype=torch.bool)
    regions = torch.ones(1, 4, 4)
    mask = torch.where(torch.rand(4, 4) > 0.5, 40.0, -40.0).expand(1, 1, 2, 4, 4)
    sums, weights = temporal_pairwise_sums(mask, matches, pairs, offsets, regions)
    assert float(sums) == pytest.approx(0.0, abs=1e-6)
    sums, _ = temporal_pairwise_sums(torch.zeros(1, 1, 2, 4, 4), matches, pairs, offsets, regions)
    assert float(sums / weights) == pytest.approx(math.log(2))


def test_one_frame_has_no_pairs() -> None:
    sums, weights = temporal_pairwise_sums(
        torch.randn(2, 3, 1, 4, 4),
        torch.zeros(3, 0, 9, 4, 4, dtype=torch.bool),
        [],
        grid_offsets(1, 3, with_center=True),
        torch.ones(3, 4, 4),
    )
    assert sums.shape == (2, 3, 0)
    assert weights.shape == (3, 0)


@pytest.mark.parametrize("kind", ["spatial", "temporal"])
def test_weights_alone_cost_few_calls_and_equal_those_of_the_sums(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are counted before the sums; no -log P is computed for that."""
    maps = torch.rand(2, 3, 6, 8).round()
    if kind == "spatial":
        edges = [torch.rand(2, 3, 6, 7) > 0.5, torch.rand(2, 3, 5, 8) > 0.5]
        arguments = edges, [(0, 1), (1, 0)], maps
    else:
        matches = torch.rand(2, 2, 3, 6, 8) > 0.5
        arguments = matches, [(0, 1), (1, 2)], [(0, 0), (0, 1), (1, 0)], maps[:, 0]
    sums_of = getattr(dense, f"{kind}_pairwise_sums")
    expected = sums_of(torch.randn(4, 2, 3, 6, 8), *arguments)
    monkeypatch.setattr(dense, "same_label_nll", None)
    sums, weights = sums_of(maps.new_zeros(0, *maps.shape), *arguments)
    assert sums.shape == (0, *expected[0].shape[1:])
    assert torch.equal(weights, expected[1])
