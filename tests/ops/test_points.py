"""Point sampling and uncertain points."""

from __future__ import annotations

import pytest
import torch

from maskfreevis_ext.ops.points import sample_points, uncertain_point_coords
from tests.helpers.golden import load_golden


def test_sample_points_equals_reference() -> None:
    golden = load_golden("pieces_main")
    maps, coords = (torch.from_numpy(golden[name]) for name in ("ps_src", "ps_coords"))
    output = sample_points(maps, coords)
    torch.testing.assert_close(output, torch.from_numpy(golden["ps_out"]), rtol=1e-5, atol=1e-6)


def test_sample_points_at_pixel_centres_gives_pixels_and_zero_outside() -> None:
    maps = torch.arange(6.0).view(1, 1, 2, 3)
    coords = torch.tensor([[[0.5 / 3, 0.25], [2.5 / 3, 0.75], [-1.0, 0.5]]])
    torch.testing.assert_close(sample_points(maps, coords), torch.tensor([[[0.0, 5.0, 0.0]]]))


def test_sample_points_gradients_are_right() -> None:
    maps = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    coords = torch.rand(2, 5, 2, dtype=torch.float64).requires_grad_()
    torch.autograd.gradcheck(sample_points, (maps, coords))


def test_sample_points_half_precision_samples_precisely() -> None:
    maps = torch.randn(1, 1, 8, 200)
    coords = torch.rand(1, 50, 2)
    expected = sample_points(maps.bfloat16().float(), coords)
    output = sample_points(maps.bfloat16(), coords)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, rtol=1e-2, atol=1e-2)


def test_sample_points_of_no_maps_is_empty() -> None:
    assert sample_points(torch.zeros(0, 2, 4, 4), torch.zeros(0, 7, 2)).shape == (0, 2, 7)


def test_uncertain_points_equal_reference() -> None:
    golden = load_golden("pieces_main")
    coords = uncertain_point_coords(
        torch.from_numpy(golden["ps_src"]),
        int(golden["uncertain_num_points"]),
        3.0,
        0.75,
        candidates=torch.from_numpy(golden["uncertain_rand_over"]),
        extra=torch.from_numpy(golden["uncertain_rand_extra"]),
    )
    # Which candidates are chosen is determined, their order is not.
    expected = torch.from_numpy(golden["uncertain_coords"])
    for ours, theirs in zip(coords, expected, strict=True):
        assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_uncertain_points_lie_on_the_boundary() -> None:
    columns = torch.linspace(-4, 4, 64).expand(2, 1, 16, 64)
    coords = uncertain_point_coords(columns, 100, 4.0, 0.5)
    assert coords.shape == (2, 100, 2)
    assert (coords[:, :50, 0] - 0.5).abs().max() < 0.12
    assert (coords[:, 50:, 0] - 0.5).abs().max() > 0.3


def test_uncertain_points_repeat_with_a_generator() -> None:
    logits = torch.randn(2, 1, 8, 8)
    first, second = (
        uncertain_point_coords(logits, 20, 3.0, 0.75, generator=torch.Generator().manual_seed(7))
        for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_uncertain_points_extreme_ratios_give_all_points(ratio: float) -> None:
    assert uncertain_point_coords(torch.randn(3, 1, 4, 4), 9, 2.0, ratio).shape == (3, 9, 2)
    assert uncertain_point_coords(torch.randn(0, 1, 4, 4), 9, 2.0, ratio).shape == (0, 9, 2)


def test_uncertain_points_bad_arguments_raise() -> None:
    logits = torch.randn(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"oversample_ratio must be >= 1 .* got 0.5 and 0.75"):
        uncertain_point_coords(logits, 8, 0.5, 0.75)
    with pytest.raises(ValueError, match=r"candidates must be \(1, 24, 2\), got \(1, 8, 2\)"):
        uncertain_point_coords(logits, 8, 3.0, 0.75, candidates=torch.rand(1, 8, 2))
