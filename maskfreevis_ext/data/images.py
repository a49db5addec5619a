"""Frames of videos, read from image files.

Images with one channel of more than 8 bits are scaled by a fixed rule, so that the frames of a
video keep their relative brightness: 16-bit values v become v / 257, floating-point values in
[0, 1] become 255 v, both rounded. Values beyond these ranges are refused.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from detectron2.data import detection_utils
from PIL import Image, ImageOps

from maskfreevis_ext.errors import DataError

_EXIF_ORIENTATION = 274
_EXIF_TURNED = range(5, 9)  # orientations that exchange width and height
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow's names


def read_frame(
    path: str | os.PathLike[str], image_format: str = "RGB", where: str = ""
) -> np.ndarray:
    """Read one image file, apply its EXIF orientation, and scale deep pixels to 8 bits.

    Args:
        path: The file.
        image_format: Channel order of the result, "RGB" or "BGR".
        where: Description of the file for messages; empty: the path.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: The file is missing, damaged or not an image, or its values are beyond the ranges
            above.
    """
    where = where or os.fspath(path)
    with _explained(path, where):
        deep = _deep_pixels(path)
        if deep is None:
            image = detection_utils.read_image(os.fspath(path), format=image_format)
            return np.ascontiguousarray(image)
    return np.repeat(_to_8_bits(deep, where)[:, :, None], 3, axis=2)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(H, W) of an upright image in pixels, from its header.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing or is no image.
    """
    with _explained(path, os.fspath(path)), Image.open(path) as image:
        width, height = image.size
        is_turned = image.getexif().get(_EXIF_ORIENTATION, 1) in _EXIF_TURNED
    return (width, height) if is_turned else (height, width)


@contextlib.contextmanager
def _explained(path: str | os.PathLike[str], where: str) -> Iterator[None]:
    """Turn errors of decoding into a DataError."""
    if not os.path.isfile(path):
        raise DataError(f"{where}: there is no such image file. Check the path or the image root.")
    try:
        yield
    except Exception as error:  # Pillow raises whatever its decoders meet
        raise DataError(
            f"{where}: expected an image, but it cannot be decoded ({type(error).__name__}:"
            f" {error}). Replace the file, or, in a data set, remove the frame from the JSON."
        ) from error


def _deep_pixels(path: str | os.PathLike[str]) -> np.ndarray | None:
    """Upright pixels (H, W) of an image of more than 8 bits; None for all others."""
    with Image.open(path) as image:
        if image.mode not in _DEEP_MODES:
            return None
        return np.asarray(ImageOps.exif_transpose(image))


def _to_8_bits(pixels: np.ndarray, where: str) -> np.ndarray:
    highest = 1.0 if pixels.dtype.kind == "f" else 65535.0
    least, most = pixels.min(), pixels.max()
    if not (least >= 0 and most <= highest):  # NaN included
        raise DataError(
            f"{where}: expected {pixels.dtype} values in 0..{highest:g}, got {least:g}..{most:g}."
            " Convert the images to 8 bits, all frames of a video in the same way."
        )
    return (pixels * (255.0 / highest)).round().astype(np.uint8)


def read_video_frame(video: Mapping[str, Any], index: int, image_format: str) -> np.ndarray:
    """Read one frame of a video and check its size against the annotation file.

    Args:
        video: Dataset dict.
        index: Frame, >= 0.
        image_format: "RGB" or "BGR".

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: The file is missing, cannot be decoded, or has another size.
    """
    path = video["file_names"][index]
    where = f"{path} (video {video['video_id']}, frame {index})"
    image = read_frame(path, image_format, where)
    expected = (video["height"], video["width"])
    if image.shape[:2] != expected:
        raise DataError(
            f"{where}: expected {expected[1]} x {expected[0]} pixels (width x height) as the JSON"
            f" says, got {image.shape[1]} x {image.shape[0]}. Correct 'height' and 'width' of the"
            " video, or the file (also its EXIF orientation)."
        )
    return image
