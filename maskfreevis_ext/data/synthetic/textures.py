"""Surfaces of objects and ground: plane waves, procedural noise, photographs.

A texture is painted at points in pixels of its own plane, which moves with the thing it covers.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Protocol

import numpy as np

#: An interval from which a value is drawn uniformly.
Range = tuple[float, float]


class Texture(Protocol):
    """Colours of a plane."""

    @property
    def color(self) -> np.ndarray:
        """Mean colour, (3,) RGB in [0, 255]."""

    def paint(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Colours (..., 3) at the points (x, y), float RGB in [0, 255]."""


@dataclass(frozen=True)
class Waves:
    """A colour times (1 + a sum of plane waves).

    Attributes:
        color: Mean colour, (3,) RGB in [0, 255].
        waves: (K, 4) of (kx, ky, phase, amplitude); k in radians per pixel.
    """

    color: np.ndarray
    waves: np.ndarray

    def paint(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Colours (..., 3) at the points (x, y), float RGB in [0, 255]."""
        kx, ky, phase, amplitude = self.waves.T
        angle = x[..., None] * kx + y[..., None] * ky + phase
        gain = 1.0 + (np.sin(angle) * amplitude).sum(axis=-1)
        return np.clip(self.color * gain[..., None], 0.0, 255.0)


@dataclass(frozen=True)
class Picture:
    """An image, continued by reflection at its borders.

    Attributes:
        pixels: (h, w, 3) float32 RGB in [0, 255]; h, w >= 2.
        middle: (x, y) in the plane of the image's middle, pixels.
    """

    pixels: np.ndarray
    middle: np.ndarray

    @property
    def color(self) -> np.ndarray:
        """Mean colour, (3,) RGB in [0, 255]."""
        return self.pixels.mean(axis=(0, 1), dtype=np.float64)

    def paint(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Colours (..., 3) at the points (x, y), between the four nearest pixels."""
        height, width = self.pixels.shape[:2]
        x, y = x - self.middle[0] + (width - 1) / 2, y - self.middle[1] + (height - 1) / 2
        left, top = np.floor(x).astype(int), np.floor(y).astype(int)
        # float32: a photograph has no more digits than that, and it halves the time
        right_share = (x - left).astype(np.float32)[..., None]
        lower_share = (y - top).astype(np.float32)[..., None]
        columns = _reflect(left, width), _reflect(left + 1, width)
        rows = _reflect(top, height), _reflect(top + 1, height)
        flat = self.pixels.reshape(-1, 3)
        upper, lower = (
            flat[row * width + columns[0]] * (1 - right_share)
            + flat[row * width + columns[1]] * right_share
            for row in rows
        )
        return upper * (1 - lower_share) + lower * lower_share


def _reflect(index: np.ndarray, size: int) -> np.ndarray:
    """Fold indices into [0, size - 1] as between two mirrors at the first and last pixel."""
    folded = index % (2 * (size - 1))
    return np.where(folded < size, folded, 2 * (size - 1) - folded)


def random_color(
    rng: np.random.Generator, hue: Range, saturation: Range, value: Range
) -> np.ndarray:
    """A colour (3,) RGB in [0, 255]; ranges of HSV in [0, 1], a hue may start below 0."""
    rgb = colorsys.hsv_to_rgb(
        rng.uniform(*hue) % 1.0, rng.uniform(*saturation), rng.uniform(*value)
    )
    return 255.0 * np.asarray(rgb)


def _random_waves(
    rng: np.random.Generator, wavelengths: Range, amplitude: float, count: int
) -> np.ndarray:
    """Plane waves of random direction; wavelengths in pixels, amplitudes sum to ``amplitude``."""
    shortest, longest = np.log(wavelengths)
    length = np.exp(rng.uniform(shortest, longest, size=count))
    direction = rng.uniform(0, 2 * np.pi, size=count)
    share = rng.uniform(0.5, 1.0, size=count)
    return np.stack(
        [
            2 * np.pi / length * np.cos(direction),
            2 * np.pi / length * np.sin(direction),
            rng.uniform(0, 2 * np.pi, size=count),
            amplitude * share / share.sum(),
        ],
        axis=1,
    )


def wave_texture(rng: np.random.Generator, hue: Range, saturation: Range, value: Range) -> Waves:
    """A colour with fine and coarse waves of brightness.

    Fine waves are seen as texture but mostly vanish in the losses' 4x4 average; coarse ones shade
    the surface so slowly that neighbouring cells keep similar colours.
    """
    color = random_color(rng, hue, saturation, value)
    fine = _random_waves(rng, (3.0, 5.0), rng.uniform(0.08, 0.22), 3)
    coarse = _random_waves(rng, (40.0, 90.0), rng.uniform(0.04, 0.09), 2)
    return Waves(color, np.concatenate([fine, coarse]))


def noise_field(rng: np.random.Generator, size: int, falloff: float) -> np.ndarray:
    """Noise whose amplitude falls with frequency as f^-falloff: (size, size), mean 0, variance 1.

    Falloff 0 is white noise, 1 looks like a rough surface, 2 like clouds.
    """
    spectrum = np.fft.rfft2(rng.normal(size=(size, size)))
    fx, fy = np.fft.rfftfreq(size), np.fft.fftfreq(size)
    frequency = np.hypot(fx[None, :], fy[:, None])
    frequency[0, 0] = 1.0
    gain = frequency**-falloff
    gain[0, 0] = 0.0  # takes the mean away
    noise = np.fft.irfft2(spectrum * gain, s=(size, size))
    return noise / noise.std()


def noise_texture(
    rng: np.random.Generator,
    hue: Range,
    saturation: Range,
    value: Range,
    size: int,
    middle: np.ndarray,
) -> Picture:
    """Patches of two tones under grainy brightness.

    Args:
        rng: Source of all randomness.
        hue: Range of both tones in [0, 1], may start below 0.
        saturation: Range of both tones in [0, 1].
        value: Range of both tones in [0, 1].
        size: Sides of the picture, pixels.
        middle: (x, y) of its middle in the texture's plane.
    """
    first, second = (random_color(rng, hue, saturation, value) for _ in range(2))
    patches = 1.0 / (1.0 + np.exp(-3.0 * noise_field(rng, size, 1.8)))[..., None]
    grain = 1.0 + rng.uniform(0.03, 0.1) * noise_field(rng, size, 0.7)[..., None]
    pixels = np.clip((first + (second - first) * patches) * grain, 0.0, 255.0)
    return Picture(pixels.astype(np.float32), middle)


def photo_texture(
    rng: np.random.Generator,
    photo: np.ndarray,
    size: int,
    middle: np.ndarray,
    color: np.ndarray | None = None,
) -> Picture:
    """A random piece of a photograph, in other light.

    Args:
        rng: Source of all randomness.
        photo: (H, W, 3) float32 RGB in [0, 255].
        size: Sides of the piece, pixels; at most those of the photograph are taken.
        middle: (x, y) of the piece's middle in the texture's plane.
        color: Mean colour that the piece is given, (3,) RGB in [0, 255] (up to clipping); None: its
            own, with a random white balance.
    """
    height, width = (min(size, side) for side in photo.shape[:2])
    top = int(rng.integers(photo.shape[0] - height + 1))
    left = int(rng.integers(photo.shape[1] - width + 1))
    piece = photo[top : top + height, left : left + width]
    if color is None:
        gain = rng.uniform(0.7, 1.15, size=3)
    else:
        gain = color / np.maximum(piece.mean(axis=(0, 1)), 1.0)
    return Picture(np.clip(piece * gain, 0.0, 255.0).astype(np.float32), middle)
