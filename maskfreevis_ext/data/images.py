"""Frames of videos, read from image files.

Images of more than 8 bits per channel are scaled by a fixed rule (``FrameRules``), so that the
frames of a video keep their relative brightness.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from detectron2.data import detection_utils
from PIL import Image, ImageOps

from maskfreevis_ext.data.frame_rules import DEFAULT_RULES, EXIF_ORIENTATION, FrameRules
from maskfreevis_ext.errors import DataError

_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow's names
_TURNS = {  # EXIF orientation -> quarter turns counterclockwise, and whether mirrored before
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (1, True),
    6: (3, False),
    7: (3, True),
    8: (1, False),
}


def read_frame(
    path: str | os.PathLike[str],
    image_format: str = "RGB",
    where: str = "",
    rules: FrameRules = DEFAULT_RULES,
) -> np.ndarray:
    """Read one image file, turn it upright, and scale deep pixels to 8 bits.

    Args:
        path: The file.
        image_format: Channel order of the result, "RGB" or "BGR".
        where: Description of the file for messages; empty: the path.
        rules: What is done with EXIF orientations and deep pixels.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: The file is missing, damaged or not an image, or its values are refused by the
            rules.
    """
    where = where or os.fspath(path)
    with _explained(path, where):
        deep = deep_pixels(path, rules)
        if deep is None:
            return np.ascontiguousarray(_shallow_pixels(path, image_format, rules))
    frame = rules.to_8_bits(deep, where)
    if image_format == "RGB":
        frame = frame[:, :, ::-1]
    return np.ascontiguousarray(np.broadcast_to(frame, (*frame.shape[:2], 3)))


def image_size(path: str | os.PathLike[str], rules: FrameRules = DEFAULT_RULES) -> tuple[int, int]:
    """(H, W) of a frame in pixels, from the header of its file.

    Args:
        path: The file.
        rules: What is done with EXIF orientations.

    Raises:
        DataError: The file is missing or is no image.
    """
    with _explained(path, os.fspath(path)), Image.open(path) as image:
        width, height = image.size
        is_turned = rules.turns(image.getexif().get(EXIF_ORIENTATION, 1))
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


def _shallow_pixels(
    path: str | os.PathLike[str], image_format: str, rules: FrameRules
) -> np.ndarray:
    """Pixels (H, W, 3) of an image of 8 bits or less."""
    if rules.exif == "apply":
        return detection_utils.read_image(os.fspath(path), format=image_format)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return pixels[:, :, ::-1] if image_format == "BGR" else pixels


def deep_pixels(path: str | os.PathLike[str], rules: FrameRules) -> np.ndarray | None:
    """Pixels of an image of more than 8 bits per channel, in its own type.

    Args:
        path: The file.
        rules: What is done with EXIF orientations.

    Returns:
        (H, W, 1), or BGR (H, W, 3); None for all other images.
    """
    with Image.open(path) as image:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        if image.mode in _DEEP_MODES:
            upright = ImageOps.exif_transpose(image) if rules.exif == "apply" else image
            return np.asarray(upright)[:, :, None]
        if not _is_deep_color(image):
            return None
    # Pillow gives such images with the upper 8 bits only. OpenCV is seldom needed, slow to import.
    import cv2

    pixels = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.ndim != 3 or pixels.dtype == np.uint8:
        return None
    if rules.exif == "apply" and orientation in _TURNS:
        turns, is_mirrored = _TURNS[orientation]
        pixels = np.rot90(pixels[:, ::-1] if is_mirrored else pixels, turns)
    return pixels[:, :, :3]


def _is_deep_color(image: Image.Image) -> bool:
    """Whether an opened image has several channels of 16 bits, as far as Pillow tells."""
    layers = getattr(image, "tile", None) or ()
    return len(image.getbands()) >= 3 and any("16" in str(layer[3]) for layer in layers)


def read_video_frame(video: Mapping[str, Any], index: int, image_format: str) -> np.ndarray:
    """Read one frame of a video and check its size against the annotation file.

    Args:
        video: Dataset dict; its ``frame_rules`` are used where it has some.
        index: Frame, >= 0.
        image_format: "RGB" or "BGR".

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: The file is missing, cannot be decoded, or has another size.
    """
    path = video["file_names"][index]
    where = f"{path} (video {video['video_id']}, frame {index})"
    image = read_frame(path, image_format, where, video.get("frame_rules", DEFAULT_RULES))
    expected = (video["height"], video["width"])
    if image.shape[:2] != expected:
        raise DataError(
            f"{where}: expected {expected[1]} x {expected[0]} pixels (width x height) as the JSON"
            f" says, got {image.shape[1]} x {image.shape[0]}. Correct 'height' and 'width' of the"
            " video, or the file (also its EXIF orientation)."
        )
    return image
