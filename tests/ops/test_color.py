"""Lab colours against scikit-image's stored values."""

from __future__ import annotations

import pytest
import torch

from maskfreevis_ext.ops.color import rgb_to_lab
from tests.helpers.golden import load_golden


def test_rgb_to_lab_on_color_cube_equals_scikit_image() -> None:
    golden = load_golden("pieces_main")
    rgb = torch.from_numpy(golden["lab_rgb_u8"]).float().reshape(-1, 3).T[:, None]
    expected = torch.from_numpy(golden["lab_out"]).double().reshape(-1, 3).T[:, None]
    assert (rgb_to_lab(rgb).double() - expected).abs().max() < 1e-3
    assert (rgb_to_lab(rgb.double()) - expected).abs().max() < 1e-4


def test_rgb_to_lab_of_white_black_and_red() -> None:
    rgb = torch.tensor([[255.0, 255, 255], [0, 0, 0], [255, 0, 0]]).T[:, None]
    lab = rgb_to_lab(rgb)[:, 0].T
    expected = torch.tensor([[100.0, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]])
    torch.testing.assert_close(lab, expected, rtol=0, atol=0.02)


def test_rgb_to_lab_keeps_leading_dimensions() -> None:
    rgb = torch.rand(2, 4, 3, 5, 6) * 255
    lab = rgb_to_lab(rgb)
    assert lab.shape == rgb.shape
    torch.testing.assert_close(lab[1, 2], rgb_to_lab(rgb[1, 2]))


@pytest.mark.parametrize("bad", [torch.zeros(4, 5, 5), torch.zeros(5, 5)])
def test_rgb_to_lab_of_wrong_shape_raises(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="3, H, W"):
        rgb_to_lab(bad)


def test_rgb_to_lab_of_integers_raises() -> None:
    with pytest.raises(ValueError, match="floating point"):
        rgb_to_lab(torch.zeros(3, 2, 2, dtype=torch.uint8))
