"""Photographs that scikit-image's wheel contains; nothing is downloaded."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np

from maskfreevis_ext.data.images import read_frame
from maskfreevis_ext.errors import DataError

#: In the public domain or under CC0 as scikit-image's documentation of each says, and part of every
#: wheel since 0.22.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "rocket.jpg",
)

#: Each photograph is shrunk by these whole factors: large parts and the detail of small ones.
_SHRINK = (2, 3)


def photographs() -> tuple[np.ndarray, ...]:
    """All photographs at several scales, in a fixed order.

    Returns:
        Arrays (H, W, 3) float32 RGB in [0, 255], every side at least 96.

    Raises:
        DataError: scikit-image is not installed, or a file of it is missing or damaged.
    """
    spec = importlib.util.find_spec("skimage")  # its files are read without importing it
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "Synthetic data: levels 2 and 3 need the photographs of scikit-image, which is not"
            " installed. Install it with: pip install 'maskfreevis_ext[synthetic]', or use level 0"
            " or 1."
        )
    return _load(Path(spec.submodule_search_locations[0]) / "data")


@functools.lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[np.ndarray, ...]:
    missing = [name for name in PHOTOGRAPHS if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"Synthetic data: expected the photographs of scikit-image in {folder}, but"
            f" {', '.join(missing)} is missing. Install another version of scikit-image (0.22 to"
            " 0.26 have them), or use level 0 or 1."
        )
    return tuple(
        _shrink(read_frame(folder / name), factor) for name in PHOTOGRAPHS for factor in _SHRINK
    )


def _shrink(image: np.ndarray, factor: int) -> np.ndarray:
    """Mean over squares of ``factor`` pixels; incomplete squares at the border are left out."""
    height, width = (side // factor for side in image.shape[:2])
    cut = image[: height * factor, : width * factor].astype(np.float32)
    return cut.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
