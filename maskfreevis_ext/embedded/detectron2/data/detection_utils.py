"""Reading images."""

from __future__ import annotations

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image

_EXIF_ORIENTATION = 274
_EXIF_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """A Pillow image as an array.

    Args:
        image: The image.
        format: A mode of Pillow, or BGR; None keeps the image's own.

    Returns:
        uint8 [H, W, C]; [H, W, 1] for L.
    """
    if format is not None:
        image = image.convert("RGB" if format == "BGR" else format)
    array = np.asarray(image)
    if format == "L":
        return array[:, :, None]
    return array[:, :, ::-1] if format == "BGR" else array


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image, turned upright as its EXIF data say.

    Args:
        file_name: Path or URL.
        format: A mode of Pillow, or BGR.

    Returns:
        uint8 [H, W, C].
    """
    with PathManager.open(file_name, "rb") as stream:
        image = Image.open(stream)
        try:
            method = _EXIF_TRANSPOSE.get(image.getexif().get(_EXIF_ORIENTATION, 1))
        except Exception:  # EXIF data of cameras are broken in many ways; the image is not
            method = None
        return convert_PIL_to_numpy(image if method is None else image.transpose(method), format)
