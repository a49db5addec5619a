"""Surfaces: deterministic, in range, continued beyond their borders."""

from __future__ import annotations

import numpy as np
import pytest

from maskfreevis_ext.data.synthetic.textures import (
    Picture,
    noise_field,
    noise_texture,
    photo_texture,
    wave_texture,
)


def _random(kind: str, seed: int = 0):
    rng = np.random.default_rng(seed)
    if kind == "waves":
        return wave_texture(rng, (0, 1), (0, 1), (0, 1))
    if kind == "noise":
        return noise_texture(rng, (0, 1), (0, 1), (0.2, 1), 32, np.zeros(2))
    photo = np.random.default_rng(9).uniform(0, 255, size=(60, 50, 3)).astype(np.float32)
    return photo_texture(rng, photo, 40, np.zeros(2))


@pytest.mark.parametrize("kind", ["waves", "noise", "photo"])
def test_textures_are_deterministic_and_in_range_everywhere(kind):
    y, x = np.mgrid[-200:200:7, -300:300:7] * 1.01
    colors = _random(kind).paint(x, y)
    assert colors.shape == (*x.shape, 3)
    assert colors.min() >= 0
    assert colors.max() <= 255
    np.testing.assert_array_equal(colors, _random(kind).paint(x, y))
    assert not np.array_equal(colors, _random(kind, seed=1).paint(x, y))


def test_picture_interpolates_and_reflects():
    pixels = np.arange(4, dtype=np.float32).reshape(1, 4, 1) * np.ones((3, 1, 3), np.float32)
    picture = Picture(pixels, middle=np.array([1.5, 1.0]))
    x = np.array([0.0, 1.25, 3.0, 4.0, -1.0, 5.5])
    expected = [0, 1.25, 3, 2, 1, 0.5]
    np.testing.assert_allclose(picture.paint(x, np.ones(6))[:, 0], expected)


def test_noise_is_standardised_and_smoother_with_falloff():
    steps = []
    for falloff in (0.0, 1.0, 2.0):
        noise = noise_field(np.random.default_rng(0), 64, falloff)
        assert noise.mean() == pytest.approx(0, abs=1e-9)
        assert noise.std() == pytest.approx(1)
        steps.append(np.abs(np.diff(noise)).mean())
    assert steps[0] > 1.5 * steps[1] > 3 * steps[2]


def test_photo_gets_the_colour_asked_for():
    photo = np.random.default_rng(9).uniform(50, 100, size=(60, 50, 3)).astype(np.float32)
    color = np.array([90.0, 60.0, 40.0])
    texture = photo_texture(np.random.default_rng(0), photo, 40, np.zeros(2), color)
    np.testing.assert_allclose(texture.color, color, rtol=1e-4)
