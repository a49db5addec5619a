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
from PIL import Image

from maskfreevis_ext.data.frame_files import check_inside
from maskfreevis_ext.data.frame_rules import DEFAULT_RULES, FrameRules
from maskfreevis_ext.data.pictures import open_picture, orientation, size_fault, upright
from maskfreevis_ext.data.worker_notes import note
from maskfreevis_ext.errors import DataError, MaskFreeError

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
    size: tuple[int, int] | None = None,
    least: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read one image file, turn it upright, and scale deep pixels to 8 bits.

    Its size is compared before it is decoded.

    Args:
        path: The file.
        image_format: Channel order of the result, "RGB" or "BGR".
        where: Description of the file for messages; empty: the path.
        rules: What is done with EXIF orientations and deep pixels.
        size: (H, W) that the frame must have; None: any.
        least: A JPEG file is decoded at 1/2, 1/4 or 1/8 of its size, which is faster, as long as
            the result has at least this (H, W); None: at its size.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: The file is missing, damaged or not an image, has another size, or its values are
            refused by the rules.
    """
    where = where or os.fspath(path)
    with _explained(path, where), open_picture(path, where) as image:
        fault = "" if size is None else size_fault(size, *_frame_size(image, rules))
        if fault:
            raise DataError(
                f"{where}: {fault}. Correct 'height' and 'width' of the video, or the file (also"
                " its EXIF orientation)."
            )
        if least is not None:
            is_turned = rules.turns(orientation(image))
            image.draft("RGB", least if is_turned else least[::-1])  # (width, height); JPEG only
        deep = deep_pixels(image, path, rules)
        if deep is None:
            shown = upright(image) if rules.exif == "apply" else image
            pixels = np.asarray(shown.convert("RGB"))
            return np.ascontiguousarray(pixels if image_format == "RGB" else pixels[:, :, ::-1])
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
    with _explained(path, os.fspath(path)), open_picture(path) as image:
        return _frame_size(image, rules)


def _frame_size(image: Image.Image, rules: FrameRules) -> tuple[int, int]:
    """(H, W) of the frame that is made of an opened picture."""
    width, height = image.size
    return (width, height) if rules.turns(orientation(image)) else (height, width)


@contextlib.contextmanager
def _explained(path: str | os.PathLike[str], where: str) -> Iterator[None]:
    """Turn errors of decoding into a DataError."""
    if not os.path.isfile(path):
        raise DataError(f"{where}: there is no such image file. Check the path or the image root.")
    try:
        yield
    except MaskFreeError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders meet
        raise DataError(
            f"{where}: expected an image, but it cannot be decoded ({type(error).__name__}:"
            f" {error}). Replace the file, or, in a data set, remove the frame from the JSON."
        ) from error


def deep_pixels(
    image: Image.Image, path: str | os.PathLike[str], rules: FrameRules
) -> np.ndarray | None:
    """Pixels of an image of more than 8 bits per channel, in its own type.

    Args:
        image: The picture, opened by ``open_picture``.
        path: Its file.
        rules: What is done with EXIF orientations.

    Returns:
        (H, W, 1), or BGR (H, W, 3); None for all other images.
    """
    if image.mode in _DEEP_MODES:
        return np.asarray(upright(image) if rules.exif == "apply" else image)[:, :, None]
    if not _is_deep_color(image):
        return None
    # Pillow gives such images with the upper 8 bits only. OpenCV is seldom needed, slow to import.
    import cv2

    pixels = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.ndim != 3 or pixels.dtype == np.uint8:
        return None
    if rules.exif == "apply" and orientation(image) in _TURNS:
        turns, is_mirrored = _TURNS[orientation(image)]
        pixels = np.rot90(pixels[:, ::-1] if is_mirrored else pixels, turns)
    return pixels[:, :, :3]


def _is_deep_color(image: Image.Image) -> bool:
    """Whether an opened image has several channels of 16 bits, as far as Pillow tells."""
    layers = getattr(image, "tile", None) or ()
    return len(image.getbands()) >= 3 and any("16" in str(layer[3]) for layer in layers)


def read_video_frame(
    video: Mapping[str, Any],
    index: int,
    image_format: str,
    least: tuple[int, int] | None = None,
) -> np.ndarray:
    """Read one frame of a video and check its size against the annotation file.

    Args:
        video: Dataset dict; its ``frame_rules`` are used where it has some.
        index: Frame, >= 0.
        image_format: "RGB" or "BGR".
        least: As in ``read_frame``.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: The file is missing, cannot be decoded, has another size, or is a link that leads
            out of the image root.
    """
    path = video["file_names"][index]
    where = f"{path} (video {video['video_id']}, frame {index})"
    note(where)
    if video.get("image_root") is not None:  # the file may have become a link since the start
        check_inside(path, video["image_root"], where)
    return read_frame(
        path,
        image_format,
        where,
        video.get("frame_rules", DEFAULT_RULES),
        (video["height"], video["width"]),
        least,
    )
