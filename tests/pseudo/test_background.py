"""What a mask leaves out, compared with mask and background."""

from __future__ import annotations

import pytest
import torch

from maskfreevis_ext.pseudo.background import background_share

GRID = 24


def _object(left_out: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A box whose left half is the mask (feature 1); the right half has another feature."""
    torch.manual_seed(0)
    inside = torch.zeros(2, GRID, GRID)
    inside[:, 6:18, 6:18] = 1
    probabilities = torch.zeros(2, GRID, GRID)
    probabilities[:, :, :12] = 0.9
    feature = torch.zeros(2, GRID, GRID)
    feature[:, 6:18, 6:12] = 1
    feature[:, 6:18, 12:18] = left_out
    values = feature[:, None] + 0.01 * torch.randn(2, 3, GRID, GRID)
    return values, probabilities, inside, torch.ones(2, GRID, GRID, dtype=torch.bool)


@pytest.mark.parametrize(("left_out", "share"), [(0.0, 1.0), (1.0, 0.0), (0.2, 1.0), (0.8, 0.0)])
def test_left_out_cells_are_told_by_their_neighbours(left_out: float, share: float) -> None:
    assert background_share(*_object(left_out), torch.Generator()) == pytest.approx(share, abs=0.02)


def test_too_few_cells_give_no_answer() -> None:
    values, probabilities, inside, in_frame = _object(0.0)
    full = torch.ones_like(probabilities)
    assert background_share(values, full, inside, in_frame, torch.Generator()) is None
    assert background_share(values, 1 - full, inside, in_frame, torch.Generator()) is None
    everywhere = torch.ones_like(inside)
    assert background_share(values, probabilities, everywhere, in_frame, torch.Generator()) is None
