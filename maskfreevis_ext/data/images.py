"""Frames of videos, read from image files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from detectron2.data import detection_utils

from maskfreevis_ext.errors import DataError


def read_frame(
    path: str | os.PathLike[str], image_format: str = "RGB", where: str = ""
) -> np.ndarray:
    """Read one image file and apply its EXIF orientation.

    Args:
        path: The file.
        image_format: Channel order of the result, "RGB" or "BGR".
        where: Description of the file for messages; empty: the path.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: The file is missing, damaged or not an image.
    """
    where = where or os.fspath(path)
    if not os.path.isfile(path):
        raise DataError(f"{where}: there is no such image file. Check the path or the image root.")
    try:
        image = detection_utils.read_image(os.fspath(path), format=image_format)
    except Exception as error:  # Pillow raises whatever its decoders meet
        raise DataError(
            f"{where}: expected an image, but it cannot be decoded ({type(error).__name__}:"
            f" {error}). Replace the file, or, in a data set, remove the frame from the JSON."
        ) from error
    return np.ascontiguousarray(image)


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
