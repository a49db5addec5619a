"""What a user names as input: video files, folders of pictures, patterns, pictures, cameras."""

from __future__ import annotations

import glob
import itertools
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from maskfreevis_ext.data.frame_files import IMAGE_SUFFIXES, check_inside, natural_key
from maskfreevis_ext.data.frame_rules import DEFAULT_RULES, FrameRules
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.video_io.sources import Camera, FrameList, FrameSource, VideoFile

logger = logging.getLogger(__name__)


def open_inputs(inputs: Sequence[str], rules: FrameRules = DEFAULT_RULES) -> list[FrameSource]:
    """Open everything that a user names.

    A number is a camera, and a name with ``*``, ``?`` or ``[`` that is no file is a pattern.
    Pictures of one folder that stand side by side are the frames of one video; the log says so.

    Args:
        inputs: Video files, folders of frames, pictures, patterns and numbers of cameras.
        rules: What is done with EXIF orientations and deep pixels of pictures.

    Returns:
        The videos, in the order of the inputs.

    Raises:
        DataError: An input does not exist or cannot be read; pictures of a video differ in size.
    """
    paths: list[Path | int] = []
    for text in inputs:
        if text.isdecimal() and not os.path.exists(text):
            paths.append(int(text))
        elif glob.has_magic(text) and not os.path.exists(text):
            paths += _matches(text)
        else:
            paths.append(Path(text))
    sources: list[FrameSource] = []
    for folder, group in itertools.groupby(paths, _picture_folder):
        named = list(group)
        if folder is None or len(named) == 1:
            sources += [
                Camera(path) if isinstance(path, int) else open_frames(path, rules)
                for path in named
            ]
        else:
            pictures = [path for path in named if isinstance(path, Path)]
            sources.append(_join(folder, pictures, rules))
    for source in sources:
        if isinstance(source, FrameList):
            source.check()
    return sources


def open_frames(
    path: str | os.PathLike[str], rules: FrameRules = DEFAULT_RULES
) -> FrameList | VideoFile:
    """Open a video file, or a folder of pictures in natural order (frame2 before frame10).

    Args:
        path: File or folder.
        rules: What is done with EXIF orientations and deep pixels of pictures.

    Raises:
        DataError: There is nothing at this path, no picture in the folder, no frame in the video,
            or a picture is a link that leads out of the folder.
    """
    path = Path(path)
    if path.is_dir():
        pictures = [
            entry
            for entry in path.iterdir()
            if entry.is_file() and not entry.name.startswith(".") and _is_picture(entry)
        ]
        if not pictures:
            raise DataError(
                f"{path}: expected a folder of pictures ({', '.join(IMAGE_SUFFIXES)}), but it has"
                " none. Give each video's own folder."
            )
        _check_links(pictures, path)
        return FrameList(_of_one_kind(pictures, path), path.resolve().name, path, rules)
    if not path.exists():
        raise DataError(f"{path}: there is no such video file or folder of frames.")
    if _is_picture(path):
        return FrameList([path], path.stem, rules=rules)
    return VideoFile(path)


def _check_links(files: Sequence[Path], folder: Path) -> None:
    for file in files:
        if file.is_symlink():
            check_inside(file, folder, str(file))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _picture_folder(path: Path | int) -> Path | None:
    """The folder of a picture; None for all else."""
    return path.parent if isinstance(path, Path) and path.is_file() and _is_picture(path) else None


def _matches(pattern: str) -> list[Path | int]:
    found = sorted(glob.glob(pattern, recursive=True), key=natural_key)
    if not found:
        raise DataError(f"{pattern}: no file or folder has a name of this pattern.")
    return [Path(path) for path in found]


def _join(folder: Path, pictures: list[Path], rules: FrameRules) -> FrameList:
    """One video of the pictures of one folder."""
    frames = _of_one_kind(pictures, folder)
    name = folder.resolve().name
    logger.info("%s: %d pictures are taken as the frames of one video.", folder, len(frames))
    return FrameList(frames, name, folder, rules)


def _of_one_kind(pictures: Sequence[Path], folder: Path) -> list[Path]:
    """Pictures in natural order; of a frame and its mask of one stem, the frame.

    Masks are PNG by custom, so the kind with the most files that is not PNG is kept.
    """
    names = Counter(path.stem for path in set(pictures))
    kinds = Counter(path.suffix for path in set(pictures) if names[path.stem] > 1)
    kept = max(kinds, key=lambda suffix: (suffix.lower() != ".png", kinds[suffix]), default="")
    left_out = sorted(kinds.keys() - {kept})
    if left_out:
        logger.warning(
            "%s: pictures %s of the same names: the %d %s are taken as frames, the %s are left out"
            " (masks?). To take others, name them by a pattern: '%s'",
            *(folder, ", ".join(sorted(kinds)), kinds[kept], kept, ", ".join(left_out)),
            folder / f"*{left_out[0]}",
        )
    frames = {path for path in pictures if path.suffix not in left_out}
    return sorted(frames, key=lambda path: natural_key(path.name))
