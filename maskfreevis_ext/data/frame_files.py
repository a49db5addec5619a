"""Image files of frames: their order, and checks that they exist under the image root."""

from __future__ import annotations

import os
import re
from typing import Any

from maskfreevis_ext.errors import DataError, first_few

#: Endings of files that are read as pictures.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
#: Endings of files that are read as videos.
VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that compares runs of digits as numbers: frame2 before frame10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part.lower()) for part in parts]


def check_images(dataset_dicts: list[dict[str, Any]]) -> None:
    """Check that the frames of all videos exist, by listing folders; no image is opened.

    Args:
        dataset_dicts: From ``load_ytvis_json``.

    Raises:
        DataError: Files are missing (the message has their number and the first five paths), or a
            symbolic link leads out of the image root.
    """
    folders: dict[str, dict[str, bool]] = {}
    missing: list[str] = []
    for video in dataset_dicts:
        for t, path in enumerate(video["file_names"]):
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = _list_folder(folder)
                _check_video_inside(folder, video)
            is_link = folders[folder].get(name)
            if is_link is None and not os.path.isfile(path):  # some file systems ignore case
                missing.append(f"{path} (video {video['video_id']}, frame {t})")
            elif is_link:
                _check_video_inside(path, video)
    if missing:
        total = sum(video["length"] for video in dataset_dicts)
        shown = first_few(missing, separator="; ")
        raise DataError(
            f"{len(missing)} of {total} frames do not exist: {shown}. {_hint(missing[0], folders)}"
            "Check the image root (and the environment variable DETECTRON2_DATASETS for built-in"
            " data sets) and the 'file_names' of the JSON."
        )


def _hint(missing: str, folders: dict[str, dict[str, bool]]) -> str:
    """What is wrong with the name of a missing frame, and what mends it; empty if unknown."""
    mends = "python tools/convert_dataset.py --from ytvis --to ytvis mends this"
    path = missing.rsplit(" (video ", 1)[0]
    if "\\" in path:
        return f"'file_names' has backslashes instead of '/': {mends}. "
    folder, name = os.path.split(path)
    other = similar_name(name, folders.get(folder, {}))
    if other is None:
        return ""
    return f"There is {other!r}, of another case or ending: {mends} with --images. "


def similar_name(name: str, names: list[str] | dict[str, bool]) -> str | None:
    """The only file whose name differs in case or in the ending of a picture alone, or None.

    Args:
        name: Name that is not there.
        names: Names that are.
    """
    stem = os.path.splitext(name)[0].lower()
    found = [
        other
        for other in names
        if os.path.splitext(other)[0].lower() == stem and other.lower().endswith(IMAGE_SUFFIXES)
    ]
    return found[0] if len(found) == 1 else None


def _list_folder(folder: str) -> dict[str, bool]:
    """Files of a folder, and whether each is a symbolic link; empty without such a folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries if entry.is_file()}
    except OSError:
        return {}


def _check_video_inside(path: str, video: dict[str, Any]) -> None:
    if video.get("image_root") is not None:
        check_inside(path, video["image_root"], f"{path} (video {video['video_id']})")


def check_inside(path: str | os.PathLike[str], root: str | os.PathLike[str], where: str) -> None:
    """Check that a file or folder lies inside a root, after all links have been followed.

    Args:
        path: The file or folder.
        root: The root, which may be a link itself.
        where: Description of the file for the message.

    Raises:
        DataError: It does not.
    """
    real, real_root = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, real_root]) != real_root:
        raise DataError(
            f"{where}: is a link that leads out of the folder {root}, to {real}. Put the files"
            " there, or make the folder itself the link."
        )
