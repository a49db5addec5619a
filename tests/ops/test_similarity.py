"""Edges and matches against the reference's stored similarity maps and against loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from maskfreevis_ext.ops.neighbors import grid_offsets, half_offsets, pair_slices
from maskfreevis_ext.ops.similarity import (
    frame_pairs,
    lab_map,
    nearest_matches,
    outside_edges,
    patch_distances,
    spatial_edges,
    valid_cells,
)
from tests.helpers.golden import CriterionCase

BOX_CASES = ["crit_main_s0", "crit_main_s2", "crit_main_s5_pad", "crit_t5_s0"]


def _lab(case: CriterionCase) -> torch.Tensor:
    lab = torch.from_numpy(case.golden["images_lab"])
    return lab.unflatten(0, (case.num_clips, -1))


@pytest.mark.parametrize("name", BOX_CASES)
def test_lab_map_equals_the_reference(name: str) -> None:
    case = CriterionCase(name)
    lab = lab_map(case.frames, stride=4, bgr=True, quantize=True)
    torch.testing.assert_close(lab, _lab(case), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", BOX_CASES)
def test_spatial_edges_equal_the_reference(name: str) -> None:
    case = CriterionCase(name)
    lab = _lab(case)
    similarity = torch.from_numpy(case.golden["images_lab_sim"]).unflatten(0, lab.shape[:2])
    expected = similarity >= 0.3
    offsets = grid_offsets(1, 2, with_center=False)
    edges = spatial_edges(lab, offsets, 0.3)
    seen_outside = torch.zeros(lab.shape[:2] + lab.shape[-2:])
    for index, (offset, edge) in enumerate(zip(offsets, edges, strict=True)):
        here, _ = pair_slices(offset, *lab.shape[-2:])
        assert torch.equal(edge, expected[:, :, index][(..., *here)])
        outside = expected[:, :, index].clone()
        outside[(..., *here)] = False
        seen_outside += outside
    assert torch.equal(outside_edges(lab, offsets, 0.3), seen_outside)


@pytest.mark.parametrize("name", BOX_CASES)
def test_patch_distances_equal_the_reference(name: str) -> None:
    case = CriterionCase(name)
    lab = _lab(case)
    pairs = frame_pairs("cycle" if case.is_cycle else "all", lab.shape[1])
    distances = patch_distances(lab, pairs, grid_offsets(1, 3, with_center=True), 3)
    for index in range(len(pairs)):
        key = "images_lab_sim_nei" + (str(index) if index else "")
        similarity = torch.from_numpy(case.golden[key])
        torch.testing.assert_close(
            torch.exp(-0.5 * distances[:, index].sqrt()), similarity, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", ["crit_main_s0", "crit_t5_s0"])
def test_nearest_matches_equal_topk_of_the_reference(name: str) -> None:
    case = CriterionCase(name)
    assert int(case.golden["n_topk_ties"]) == 0
    similarity = torch.from_numpy(case.golden["images_lab_sim_nei"])
    keep = torch.zeros_like(similarity).scatter(1, similarity.topk(5, dim=1).indices, 1.0) > 0
    expected = keep & (similarity >= 0.05)
    distances = (-2 * similarity.double().log()).square()[:, None]
    assert torch.equal(nearest_matches(distances, 5, 0.05)[:, 0], expected)


def test_nearest_matches_takes_lower_index_of_equal_distances() -> None:
    distances = torch.zeros(1, 1, 9, 1, 1)
    kept = nearest_matches(distances, 5, 0.05).flatten()
    assert kept.tolist() == [True] * 5 + [False] * 4


@pytest.mark.parametrize("patch_size", [1, 3, 5])
def test_patch_distances_equal_a_loop(patch_size: int) -> None:
    lab = torch.randn(2, 3, 3, 6, 7)
    pairs, offsets = [(0, 2), (1, 0)], grid_offsets(1, 2, with_center=True)
    got = patch_distances(lab, pairs, offsets, patch_size)
    margin = patch_size // 2
    padded = F.pad(lab, (margin,) * 4)

    def patch(frame: int, y: int, x: int) -> torch.Tensor:
        if not (0 <= y < 6 and 0 <= x < 7):
            return torch.zeros(2, 3, patch_size, patch_size)
        return padded[:, frame, :, y : y + patch_size, x : x + patch_size]

    for e, (a, b) in enumerate(pairs):
        for r, (dy, dx) in enumerate(offsets):
            for y in range(6):
                for x in range(7):
                    difference = patch(b, y, x) - patch(a, y + dy, x + dx)
                    expected = difference.square().sum((1, 2, 3))
                    torch.testing.assert_close(got[:, e, r, y, x], expected, rtol=1e-4, atol=1e-4)


def test_padding_and_outside_never_match() -> None:
    frames = torch.zeros(1, 2, 3, 32, 32)  # black everywhere: all cells look alike
    valid = valid_cells([(18, 32)], (8, 8), 4, frames.device)
    assert valid[0, :4].all()
    assert not valid[0, 4:].any()
    lab = lab_map(frames)
    for offset, edge in zip(
        half_offsets(1, 2), spatial_edges(lab, half_offsets(1, 2), 0.3, valid), strict=True
    ):
        here, there = pair_slices(offset, 8, 8)
        assert torch.equal(edge[0, 0], valid[0][here] & valid[0][there])
    offsets = grid_offsets(1, 3, with_center=True)
    distances = patch_distances(lab, [(0, 1)], offsets, 3, valid)
    matches = nearest_matches(distances, 9, 0.05)
    for index, offset in enumerate(offsets):
        here, there = pair_slices(offset, 8, 8)
        expected = torch.zeros(8, 8, dtype=torch.bool)
        expected[here] = valid[0][here] & valid[0][there]
        assert torch.equal(matches[0, 0, index], expected)


def test_threshold_is_that_of_the_similarity() -> None:
    lab = torch.zeros(1, 1, 3, 1, 3)
    limit = -2 * math.log(0.3)
    lab[0, 0, 0, 0] = torch.tensor([0.0, limit * 0.999, limit * 2.001])
    (edge,) = spatial_edges(lab, [(0, 1)], 0.3)
    assert edge.flatten().tolist() == [True, False]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("chain", [(0, 1), (1, 2), (2, 3)]),
        ("stride-1", [(0, 1), (1, 2), (2, 3)]),
        ("stride-2", [(0, 2), (1, 3)]),
        ("stride-9", []),
        ("cycle", [(0, 1), (1, 2), (2, 3), (3, 0)]),
        ("all", [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
    ],
)
def test_frame_pairs_of_four_frames(kind: str, expected: list[tuple[int, int]]) -> None:
    assert frame_pairs(kind, 4) == expected


@pytest.mark.parametrize("kind", ["chain", "cycle", "all"])
def test_frame_pairs_of_short_clips(kind: str) -> None:
    assert frame_pairs(kind, 1) == []
    assert frame_pairs(kind, 2) == [(0, 1)]


def test_bad_arguments_raise() -> None:
    for kind in ("ring", "stride-0", "stride-", "stride-x", "chain-2"):
        with pytest.raises(ValueError, match="'cycle', 'all', 'chain', 'stride-k'"):
            frame_pairs(kind, 3)
    with pytest.raises(ValueError, match="multiple of the stride"):
        lab_map(torch.zeros(1, 3, 10, 8))
    with pytest.raises(ValueError, match="odd"):
        patch_distances(torch.zeros(1, 2, 3, 4, 4), [(0, 1)], [(0, 0)], 2)
    with pytest.raises(ValueError, match="at least 1"):
        nearest_matches(torch.zeros(1, 1, 9, 2, 2), 0, 0.05)
