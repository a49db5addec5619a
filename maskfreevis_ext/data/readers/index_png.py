"""Masks in the pixels of PNG files: DAVIS, YouTube-VOS and KITTI MOTS."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from maskfreevis_ext.data.annotation_form import Video, check_frame_size
from maskfreevis_ext.data.pictures import open_picture
from maskfreevis_ext.data.readers.files import walk_folders
from maskfreevis_ext.data.readers.frames import listed_frames
from maskfreevis_ext.data.readers.options import ReadOptions
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.rle import encode_masks

#: Value of pixels that no object owns for certain.
VOID = 255


def read_index_png(path: str, modes: Sequence[str], expected: str) -> np.ndarray:
    """Read the numbers of the pixels of a PNG file.

    Args:
        path: The file.
        modes: Pillow's names of the pixel forms that are taken.
        expected: What the file should hold, for the message.

    Returns:
        (H, W), unsigned or signed integers >= 0.

    Raises:
        DataError: The file cannot be read, is too large, or has pixels of another form.
    """
    try:
        with open_picture(path, formats=("PNG",)) as image:
            check_frame_size(image.height, image.width, path)
            if image.mode not in modes:
                raise DataError(
                    f"{path}: expected {expected}, got pixels of the form {image.mode!r}."
                )
            return np.asarray(image)
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders meet
        raise DataError(
            f"{path}: expected a PNG file ({type(error).__name__}: {error})."
        ) from error


def masks_of_values(pixels: np.ndarray, values: Sequence[int]) -> list[dict]:
    """Compressed RLEs of the pixels that have each value.

    Args:
        pixels: (H, W).
        values: The values.

    Returns:
        One RLE a value.
    """
    if not len(values):
        return []
    return [encode_masks((pixels == value)[None])[0] for value in values]


def check_mask_size(pixels: np.ndarray, video: Video, path: str) -> None:
    """Check that a mask has the size of its video, which its first mask said.

    Args:
        pixels: The mask, (H, W).
        video: The video.
        path: File of the mask, for the message.

    Raises:
        DataError: It has not.
    """
    height, width = pixels.shape
    if (height, width) != (video.height, video.width):
        raise DataError(
            f"{path}: expected {video.width} x {video.height} pixels like the first mask of the"
            f" video, got {width} x {height}."
        )


def mask_folders(root: str) -> list[tuple[str, list[str]]]:
    """Folders of mask pictures under a folder.

    Args:
        root: A data set, whose masks are looked for in the folder ``Annotations`` if it has one, a
            folder of such folders, or one folder of masks.

    Returns:
        Name of each video and the paths of its PNG files, in natural order.

    Raises:
        DataError: There is no PNG file.
    """
    inner = os.path.join(root, "Annotations")
    base = inner if os.path.isdir(inner) else root
    folders = walk_folders(base, ".png")
    if not folders:
        raise DataError(f"{base}: expected folders of PNG masks, but there is no PNG file.")
    prefix = os.path.commonpath([folder for folder, _ in folders]) if len(folders) > 1 else ""
    if len(folders) == 1 and folders[0][0]:
        prefix = os.path.dirname(folders[0][0])
    found = []
    for folder, names in folders:
        name = os.path.relpath(folder or ".", prefix or ".").replace(os.sep, "/")
        if name == ".":
            name = os.path.basename(os.path.abspath(os.path.join(base, folder)))
        found.append((name, [os.path.join(base, folder, file) for file in names]))
    return found


def frame_files(
    name: str,
    masks: Sequence[str],
    options: ReadOptions,
    default: Callable[[str], str],
    is_only: bool,
) -> list[str]:
    """The frame of each mask: the picture of the same stem.

    Args:
        name: The video.
        masks: Paths of its masks.
        options: ``images``: where the frames are looked for.
        default: Name of the frame of a stem without an image folder.
        is_only: There is no other video.

    Returns:
        One path a mask, relative to the image folder.

    Raises:
        DataError: A mask has no frame.
    """
    stems = [os.path.splitext(os.path.basename(path))[0] for path in masks]
    if options.images is None:
        return [default(stem) for stem in stems]
    listed = listed_frames(options.images, name, is_only)
    by_stem = {os.path.splitext(os.path.basename(frame))[0]: frame for frame in listed}
    missing = [path for path, stem in zip(masks, stems, strict=True) if stem not in by_stem]
    if missing:
        raise DataError(
            f"{missing[0]}: there is no frame of this name in {options.images} ({len(missing)} of"
            f" {len(masks)} masks of video {name!r} have none). Check --images."
        )
    return [by_stem[stem] for stem in stems]
