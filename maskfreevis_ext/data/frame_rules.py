"""How image files become 8-bit upright frames: the rules of ``INPUT.EXIF`` and ``PIXEL_RANGE``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from maskfreevis_ext.errors import DataError

EXIF_ORIENTATION = 274
EXIF_TURNED = range(5, 9)  #: Orientations that exchange width and height.


@dataclass(frozen=True)
class FrameRules:
    """What is done with the pixels of a file.

    Attributes:
        exif: "apply": turn the frame as its EXIF orientation says. "ignore": take the pixels as
            they are stored.
        pixel_range: (low, high): values of images of more than 8 bits that become 0 and 255; values
            beyond are clipped. Empty: 0 and 65535 of whole numbers, 0 and 1 of floating-point ones;
            values beyond are refused.
    """

    exif: str = "apply"
    pixel_range: tuple[float, ...] = ()

    @classmethod
    def from_config(cls, cfg: Any) -> FrameRules:
        """The rules of ``INPUT.EXIF`` and ``INPUT.PIXEL_RANGE``."""
        return cls(cfg.INPUT.EXIF, tuple(float(value) for value in cfg.INPUT.PIXEL_RANGE))

    def turns(self, orientation: int) -> bool:
        """Whether a frame of this EXIF orientation is shown with width and height exchanged."""
        return self.exif == "apply" and orientation in EXIF_TURNED

    def to_8_bits(self, pixels: np.ndarray, where: str) -> np.ndarray:
        """Scale the pixels of an image of more than 8 bits.

        Args:
            pixels: Whole or floating-point numbers of any shape.
            where: Description of the file for messages.

        Returns:
            uint8 of the same shape, rounded.

        Raises:
            DataError: There is a NaN, or, without ``pixel_range``, a value beyond its type's range.
        """
        low, high = self.pixel_range or (0.0, 1.0 if pixels.dtype.kind == "f" else 65535.0)
        least, most = pixels.min(), pixels.max()
        if self.pixel_range and np.isnan(least):
            raise DataError(f"{where}: expected numbers as pixels, got NaN. Mend the file.")
        if not self.pixel_range and not (least >= low and most <= high):  # NaN included
            raise DataError(
                f"{where}: expected {pixels.dtype} values in 0..{high:g}, got {least:g}..{most:g}."
                " Set INPUT.PIXEL_RANGE to the values that are black and white in all videos, or"
                " convert the images to 8 bits, all frames of a video in the same way."
            )
        scaled = (pixels.astype(np.float64) - low) * (255.0 / (high - low))
        return scaled.clip(0, 255).round().astype(np.uint8)


#: Upright frames, deep pixels scaled by their type.
DEFAULT_RULES = FrameRules()
