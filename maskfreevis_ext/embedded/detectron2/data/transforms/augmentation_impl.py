"""Random augmentations, which draw from numpy's generator in the order in which Detectron2 does."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from detectron2.data.transforms.augmentation import Augmentation
from detectron2.data.transforms.transform import ResizeTransform, RotationTransform
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    VFlipTransform,
)
from PIL import Image

_STYLES = ("range", "choice")
_CROP_TYPES = ("relative_range", "relative", "absolute", "absolute_range")


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise AssertionError(f"{what} {value!r}, expected one of {', '.join(choices)}.")


class RandomFlip(Augmentation):
    """Flips the image, in one of two directions.

    Args:
        prob: Probability.
        horizontal: Left and right change places.
        vertical: Top and bottom change places.

    Raises:
        ValueError: Both directions, or none.
    """

    def __init__(
        self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False
    ) -> None:
        if horizontal == vertical:
            raise ValueError("RandomFlip flips in one direction: horizontal or vertical.")
        self.prob = prob
        self.horizontal = horizontal
        self.vertical = vertical

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a flip or nothing."""
        height, width = image.shape[:2]
        if np.random.uniform() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class ResizeShortestEdge(Augmentation):
    """Resizes the image to a length of its shorter side, keeping the aspect ratio.

    Args:
        short_edge_length: Lengths to choose from, or [lowest, highest]; one number is both.
        max_size: If the longer side would exceed this, it becomes this instead.
        sample_style: ``choice`` or ``range``.
        interp: Interpolation of Pillow.

    Raises:
        AssertionError: ``sample_style`` is unknown, or ``range`` without two lengths.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = Image.Resampling.BILINEAR,
    ) -> None:
        _check_choice("sample_style", sample_style, _STYLES)
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        self.is_range = sample_style == "range"
        if self.is_range and len(short_edge_length) != 2:
            raise AssertionError(
                f"sample_style 'range' needs two lengths, got {tuple(short_edge_length)}."
            )
        self.short_edge_length = short_edge_length
        self.max_size = max_size
        self.sample_style = sample_style
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a length; 0 means no resizing."""
        if self.is_range:
            low, high = self.short_edge_length
            size = np.random.randint(low, high + 1)
        else:
            size = np.random.choice(self.short_edge_length)
        if size == 0:
            return NoOpTransform()
        height, width = image.shape[:2]
        new_height, new_width = self.get_output_shape(height, width, size, self.max_size)
        return ResizeTransform(height, width, new_height, new_width, self.interp)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """(height, width) after resizing, each rounded half up."""
        size = float(short_edge_length)
        scale = size / min(oldh, oldw)
        height, width = (size, scale * oldw) if oldh < oldw else (scale * oldh, size)
        longest = max(height, width)
        if longest > max_size:
            shrink = max_size * 1.0 / longest
            height, width = height * shrink, width * shrink
        return int(height + 0.5), int(width + 0.5)


class RandomCrop(Augmentation):
    """Cuts out a random rectangle.

    Args:
        crop_type: How its size is drawn. ``relative``: the fractions ``crop_size`` of (height,
            width). ``relative_range``: fractions between those and 1. ``absolute``: (height, width)
            in pixels, at most the image. ``absolute_range``: each side in pixels within
            [crop_size[0], crop_size[1]], at most the image.
        crop_size: Two numbers.
    """

    def __init__(self, crop_type: str, crop_size: Sequence[float]) -> None:
        _check_choice("crop_type", crop_type, _CROP_TYPES)
        self.crop_type = crop_type
        self.crop_size = crop_size

    def get_transform(self, image: np.ndarray) -> CropTransform:
        """Draw the size, then the position.

        Raises:
            AssertionError: The rectangle is larger than the image.
        """
        height, width = image.shape[:2]
        crop_height, crop_width = self.get_crop_size((height, width))
        if crop_height > height or crop_width > width:
            raise AssertionError(f"A crop of {crop_height, crop_width} leaves {height, width}.")
        y = np.random.randint(height - crop_height + 1)
        x = np.random.randint(width - crop_width + 1)
        return CropTransform(x, y, crop_width, crop_height)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Draw (height, width) of the rectangle for an image of this (height, width).

        Raises:
            AssertionError: ``absolute_range`` whose first number exceeds its second.
        """
        height, width = image_size
        first, second = self.crop_size
        if self.crop_type == "absolute":
            return min(int(first), height), min(int(second), width)
        if self.crop_type == "absolute_range":
            if first > second:
                raise AssertionError(f"crop_size {tuple(self.crop_size)} is not a range.")
            low, high = int(first), int(second)
            crop_height = np.random.randint(min(height, low), min(height, high) + 1)
            crop_width = np.random.randint(min(width, low), min(width, high) + 1)
            return crop_height, crop_width
        if self.crop_type == "relative_range":
            smallest = np.asarray(self.crop_size, dtype=np.float32)
            first, second = smallest + np.random.rand(2) * (1 - smallest)
        return int(height * first + 0.5), int(width * second + 0.5)


class RandomRotation(Augmentation):
    """Rotates the image.

    Args:
        angle: Degrees, counter-clockwise: values to choose from, or [lowest, highest]; one number
            is both.
        expand: Make room for the corners.
        center: Fixed point as a fraction (x, y) of the image: values to choose from, or [lowest,
            highest].
        sample_style: ``range`` or ``choice``.
        interp: Interpolation of OpenCV.
    """

    def __init__(
        self,
        angle: float | Sequence[float],
        expand: bool = True,
        center: Sequence | None = None,
        sample_style: str = "range",
        interp: int | None = None,
    ) -> None:
        _check_choice("sample_style", sample_style, _STYLES)
        self.is_range = sample_style == "range"
        if isinstance(angle, (float, int)):
            angle = (angle, angle)
        if center is not None and isinstance(center[0], (float, int)):
            center = (center, center)
        self.angle = angle
        self.expand = expand
        self.center = center
        self.sample_style = sample_style
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the angle, then the centre of rotation."""
        height, width = image.shape[:2]
        center = None
        if self.is_range:
            angle = np.random.uniform(self.angle[0], self.angle[1])
            if self.center is not None:
                low, high = self.center
                center = (
                    np.random.uniform(low[0], high[0]),
                    np.random.uniform(low[1], high[1]),
                )
        else:
            angle = np.random.choice(self.angle)
            if self.center is not None:
                center = self.center[np.random.choice(len(self.center))]
        if angle % 360 == 0:
            return NoOpTransform()
        if center is not None:
            center = (width * center[0], height * center[1])
        return RotationTransform(
            height, width, angle, expand=self.expand, center=center, interp=self.interp
        )
