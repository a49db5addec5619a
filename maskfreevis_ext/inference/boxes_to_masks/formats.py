"""Annotations of other formats than YouTube-VIS: converted before and after."""

from __future__ import annotations

import os
from pathlib import Path

from maskfreevis_ext.data.convert import Conversion, convert
from maskfreevis_ext.data.frame_files import IMAGE_SUFFIXES
from maskfreevis_ext.data.readers import ReadOptions
from maskfreevis_ext.data.writers import WRITERS
from maskfreevis_ext.inference.video_io import open_frames

YTVIS = "ytvis"


def is_file_format(name: str) -> bool:
    """Whether annotations of a format are written to one file, not to a folder."""
    return bool(WRITERS[name].suffix)


def to_ytvis(name: str, path: str, images: str, target: Path) -> None:
    """Convert annotations to YouTube-VIS JSON.

    Args:
        name: Their format.
        path: File or folder.
        images: Folder of frames or of videos, or a video file.
        target: The file to write.

    Raises:
        DataError: The annotations or the frames cannot be used.
        ConfigError: There is no such format.
    """
    options = ReadOptions(images)
    if os.path.isfile(images):
        frame = next(iter(open_frames(images)))
        options = ReadOptions(size=(frame.shape[0], frame.shape[1]))
    elif not _has_pictures(images):  # but videos, perhaps
        options = ReadOptions()
    convert(Conversion(name, path, YTVIS, str(target), options, overwrite=True))


def from_ytvis(path: Path, name: str, target: str, overwrite: bool) -> None:
    """Convert a YouTube-VIS JSON to another format.

    Args:
        path: The file.
        name: The other format.
        target: File or folder to write.
        overwrite: Replace a file of other origin, too.

    Raises:
        DataError: The output cannot be written.
        ConfigError: There is no such format.
    """
    convert(Conversion(YTVIS, str(path), name, target, overwrite=overwrite))


def _has_pictures(folder: str) -> bool:
    """Whether there is a picture under a folder; the first that is found ends the search."""
    return any(
        name.lower().endswith(IMAGE_SUFFIXES) for _, _, names in os.walk(folder) for name in names
    )
