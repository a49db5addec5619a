"""Sine encodings against the formula, cell by cell."""

from __future__ import annotations

import math

import pytest
import torch

from maskfreevis_ext.modeling.position_encoding import sine_position_2d, sine_position_3d


def _angle(index: int, length: int, channel: int, dim: int) -> float:
    """Sine or cosine of a position, by the definition."""
    angle = (index + 1) / (length + 1e-6) * 2 * math.pi / 10000 ** (2 * (channel // 2) / dim)
    return math.sin(angle) if channel % 2 == 0 else math.cos(angle)


@pytest.mark.parametrize("dim", [8, 6])
def test_sine_3d_equals_formula(dim: int) -> None:
    frames, height, width, half = 2, 3, 4, dim // 2
    encoding = sine_position_3d(frames, height, width, dim, torch.device("cpu"))
    assert encoding.shape == (frames * height * width, dim)
    for row, values in enumerate(encoding.tolist()):
        t, y, x = row // (height * width), row // width % height, row % width
        for channel, value in enumerate(values):
            if channel < half:
                expected = _angle(y, height, channel, half)
            else:
                expected = _angle(x, width, channel - half, half)
            expected += _angle(t, frames, channel, dim)
            assert value == pytest.approx(expected, abs=2e-6)


def test_sine_2d_is_the_map_part_of_3d() -> None:
    device = torch.device("cpu")
    flat = sine_position_2d(5, 7, 12, device)
    clip = sine_position_3d(3, 5, 7, 12, device).view(3, 35, 12)
    difference = clip - flat
    assert torch.allclose(difference, difference[:, :1].expand_as(difference), atol=1e-6)


def test_sine_3d_time_spans_the_circle_for_any_clip() -> None:
    device = torch.device("cpu")
    for frames in (1, 2, 7):
        last = sine_position_3d(frames, 2, 2, 8, device)[-4:] - sine_position_2d(2, 2, 8, device)
        assert last[0, 0].item() == pytest.approx(0.0, abs=1e-4)
        assert last[0, 1].item() == pytest.approx(1.0, abs=1e-4)
