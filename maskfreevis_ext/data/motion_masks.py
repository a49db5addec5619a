"""Motion masks (masks of the moving pixels, from another method), one PNG file per frame."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from maskfreevis_ext.data.frame_files import check_inside
from maskfreevis_ext.data.pictures import open_picture
from maskfreevis_ext.data.worker_notes import note
from maskfreevis_ext.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


def candidate_paths(root: str, file_name: str, image_root: str, index: int) -> list[str]:
    """Paths where the motion mask of a frame is searched, in this order.

    Args:
        root: INPUT.MOTION_MASK_ROOT.
        file_name: Path of the frame, inside ``image_root``.
        image_root: Folder of the videos' frames.
        index: Number of the frame in the video, from 0.

    Returns:
        ``<root>/<video>/<frame>.png``; then SegAnyMo's output of one video,
        ``<root>/<video>/sam2/mask_frames/view_0/<ttt>.png``, and its output of several views, each
        of which is a video here, ``<root>/sam2/mask_frames/<video>/<ttt>.png``.
    """
    relative = os.path.relpath(file_name, image_root)
    video, frame = os.path.split(relative)
    name = f"{index:03d}.png"
    frames = os.path.join("sam2", "mask_frames")
    return [
        os.path.join(root, video, os.path.splitext(frame)[0] + ".png"),
        os.path.join(root, video, frames, "view_0", name),
        os.path.join(root, frames, video, name),
    ]


def find_motion_mask(root: str, video: dict[str, Any], index: int) -> str | None:
    """Path of the motion mask of a frame, or None where there is none."""
    paths = candidate_paths(root, video["file_names"][index], video["image_root"], index)
    return next((path for path in paths if os.path.isfile(path)), None)


def read_motion_mask(root: str, video: dict[str, Any], index: int) -> np.ndarray | None:
    """Read the motion mask of a frame.

    Args:
        root: INPUT.MOTION_MASK_ROOT.
        video: Dataset dict.
        index: Number of the frame in the video, from 0.

    Returns:
        (H, W) bool, True for moving pixels; None for a frame without a file.

    Raises:
        DataError: The file cannot be read, has another size than the video, or is a link that leads
            out of the folder.
    """
    path = find_motion_mask(root, video, index)
    if path is None:
        return None
    check_inside(path, root, path)
    note(f"{path} (video {video['video_id']}, frame {index})")
    size = (video["height"], video["width"])
    try:
        with open_picture(path) as image:
            got = image.height, image.width
            if got == size:
                has_alpha = "A" in image.getbands()
                mask = np.asarray(image.convert("RGB") if has_alpha else image) > 0
    except Exception as error:  # Pillow raises whatever its decoders meet
        raise DataError(
            f"{path}: expected a motion mask, but the file cannot be read:"
            f" {str(error).rstrip('.')}. Write it again, or delete it."
        ) from error
    if got != size:
        raise DataError(
            f"{path}: expected a motion mask of the size {size} (height, width) of its frame, got"
            f" {got}. Write it in the size of the video, or delete it."
        )
    if mask.ndim == 3:
        mask = np.asarray(mask.any(axis=-1))
    return mask


def check_motion_masks(root: str, videos: Iterable[dict[str, Any]]) -> None:
    """Check that there are motion masks, and log how many frames have one.

    Args:
        root: INPUT.MOTION_MASK_ROOT.
        videos: Dataset dicts.

    Raises:
        ConfigError: The folder does not exist, or has no mask of any frame; the message has the
            paths that were tried for the first frame.
    """
    if not os.path.isdir(root):
        raise ConfigError(
            f"INPUT.MOTION_MASK_ROOT must be a folder, but {os.path.abspath(root)} is not there."
            " Correct the path, or leave the key empty to train without motion masks."
        )
    found = total = 0
    example: list[str] = []
    for video in videos:
        for index in range(video["length"]):
            total += 1
            found += find_motion_mask(root, video, index) is not None
            example = example or candidate_paths(
                root, video["file_names"][index], video["image_root"], index
            )
    if found == 0:
        raise ConfigError(
            f"INPUT.MOTION_MASK_ROOT: none of the {total} frames has a motion mask; looked for "
            f"{', '.join(example)} and so on."
        )
    logger.info("%d of %d frames have motion masks.", found, total)
