"""Shifted views against explicit loops."""

from __future__ import annotations

import pytest
import torch

from maskfreevis_ext.ops.neighbors import grid_offsets, half_offsets, pair_slices


def test_grid_offsets_are_row_major() -> None:
    assert grid_offsets(1, 2, with_center=False) == [
        (-2, -2), (-2, 0), (-2, 2), (0, -2), (0, 2), (2, -2), (2, 0), (2, 2),
    ]  # fmt: skip
    assert len(grid_offsets(2, 3, with_center=True)) == 25


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_half_offsets_and_their_negatives_are_all_offsets(radius: int) -> None:
    half = half_offsets(radius, 3)
    both = half + [(-dy, -dx) for dy, dx in half]
    assert sorted(both) == sorted(grid_offsets(radius, 3, with_center=False))


@pytest.mark.parametrize("offset", [(0, 0), (2, -1), (-3, 0), (1, 4), (9, 0), (0, -9)])
def test_pair_slices_line_up_both_cells(offset: tuple[int, int]) -> None:
    height, width = 5, 6
    grid = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1
    )
    here, there = pair_slices(offset, height, width)
    cells, neighbors = grid[here], grid[there]
    assert torch.equal(neighbors, cells + torch.tensor(offset))
    inside = sum(
        0 <= y + offset[0] < height and 0 <= x + offset[1] < width
        for y in range(height)
        for x in range(width)
    )
    assert cells[..., 0].numel() == inside


def test_grid_offsets_out_of_range_raises() -> None:
    with pytest.raises(ValueError, match="dilation >= 1"):
        grid_offsets(1, 0, with_center=True)
