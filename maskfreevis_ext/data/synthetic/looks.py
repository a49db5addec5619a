"""Random surfaces of the objects, the clutter and the ground of one video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from maskfreevis_ext.data.synthetic.photographs import photographs
from maskfreevis_ext.data.synthetic.textures import (
    Range,
    Texture,
    noise_texture,
    photo_texture,
    random_color,
    wave_texture,
)

#: Hue interval of each class at levels 0 and 1 (0..1, may start below 0). The ground has little
#: saturation, so that colour tells an object from it, as the pairwise losses assume.
_HUES: tuple[Range, ...] = ((-0.04, 0.07), (0.54, 0.68), (0.26, 0.42))

#: Least distance of the mean colours (RGB) of ground and objects that are not meant to be alike.
_COLOR_GAP = 60.0

#: Share of noise among the surfaces of levels 2 and 3.
_NOISE_SHARE = 0.25

#: Draws the surface of an object of a class, given by its index.
Painter = Callable[[np.random.Generator, int], Texture]


@dataclass(frozen=True)
class Looks:
    """The surfaces of a video.

    Attributes:
        ground: Surface of the ground.
        paint_object: Draws the surface of an object.
        paint_clutter: Draws the surface of a thing without annotation.
    """

    ground: Texture
    paint_object: Painter
    paint_clutter: Callable[[np.random.Generator], Texture]


def paint_waves(rng: np.random.Generator, class_index: int) -> Texture:
    """Surface of an object of level 0: plane waves in the hue of its class."""
    return wave_texture(rng, _HUES[class_index], (0.55, 0.85), (0.6, 0.9))


def paint_wave_ground(rng: np.random.Generator) -> Texture:
    """Surface of the ground of level 0: dull plane waves."""
    return wave_texture(rng, (0.0, 1.0), (0.05, 0.22), (0.3, 0.8))


def noise_looks(rng: np.random.Generator, height: int, width: int) -> Looks:
    """Surfaces of level 1: noise, objects in the hue of their class, all else dull.

    Args:
        rng: Source of all randomness of the ground.
        height: Of the frame, pixels.
        width: Of the frame, pixels.
    """
    side = min(height, width)
    middle = np.array([width, height]) / 2

    def paint_object(rng: np.random.Generator, class_index: int) -> Texture:
        hue = _HUES[class_index]
        return noise_texture(rng, hue, (0.5, 0.9), (0.45, 0.95), side, np.zeros(2))

    def paint_clutter(rng: np.random.Generator) -> Texture:
        return noise_texture(rng, (0.0, 1.0), (0.0, 0.25), (0.15, 0.95), side, np.zeros(2))

    size = _ground_size(height, width)
    ground = noise_texture(rng, (0.0, 1.0), (0.0, 0.25), (0.25, 0.8), size, middle)
    return Looks(ground, paint_object, paint_clutter)


def photo_looks(rng: np.random.Generator, height: int, width: int, alike: float) -> Looks:
    """Surfaces of levels 2 and 3: pieces of photographs, and a quarter of noise, in any colour.

    Args:
        rng: Source of all randomness of the ground.
        height: Of the frame, pixels.
        width: Of the frame, pixels.
        alike: Share of the objects that are cut from the photograph of the ground and have nearly
            its mean colour, in [0, 1].

    Raises:
        DataError: The photographs are not there.
    """
    photos = photographs()
    side = min(height, width)
    ground_photo = photos[int(rng.integers(len(photos)))]
    size, middle = _ground_size(height, width), np.array([width, height]) / 2
    ground: Texture = (
        noise_texture(rng, (0.0, 1.0), (0.0, 0.7), (0.2, 0.9), size, middle)
        if rng.random() < _NOISE_SHARE
        else photo_texture(rng, ground_photo, size, middle)
    )
    ground_color = ground.color

    def paint_clutter(rng: np.random.Generator) -> Texture:
        if rng.random() < _NOISE_SHARE:
            return noise_texture(rng, (0.0, 1.0), (0.2, 0.9), (0.2, 0.95), side, np.zeros(2))
        photo = photos[int(rng.integers(len(photos)))]
        is_tinted = rng.random() < 0.5  # four of the ten photographs are grey
        color = random_color(rng, (0.0, 1.0), (0.1, 0.7), (0.3, 0.9)) if is_tinted else None
        return photo_texture(rng, photo, side, np.zeros(2), color)

    def paint_object(rng: np.random.Generator, class_index: int) -> Texture:
        if rng.random() < alike:
            # A little darker or brighter, so that a flat piece on flat ground can be seen.
            shade = rng.uniform(20.0, 40.0) * (-1 if ground_color.mean() > 100 else 1)
            color = np.clip(ground_color + shade, 0.0, 255.0)
            return photo_texture(rng, ground_photo, side, np.zeros(2), color)
        for _ in range(8):
            texture = paint_clutter(rng)
            if np.linalg.norm(texture.color - ground_color) >= _COLOR_GAP:
                break
        return texture

    return Looks(ground, paint_object, paint_clutter)


def _ground_size(height: int, width: int) -> int:
    """Sides of the ground's picture, pixels: the frame and what a moving camera sees beside it."""
    return int(1.5 * max(height, width))
