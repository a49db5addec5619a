"""Names and sizes of frames: from the annotations, from the image folder, or by the usual rule."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from maskfreevis_ext.data.annotation_form import MAX_FRAMES, check_frame_size
from maskfreevis_ext.data.frame_files import IMAGE_SUFFIXES, check_inside
from maskfreevis_ext.data.images import image_size
from maskfreevis_ext.data.readers.files import list_files
from maskfreevis_ext.data.readers.options import ReadOptions
from maskfreevis_ext.errors import DataError

#: Folders inside a video's folder in which data sets keep its frames.
_INNER = ("", "img1", "images")


def listed_frames(images: str, name: str, is_only_video: bool = False) -> list[str]:
    """Frames of a video in the image folder.

    Args:
        images: The image folder.
        name: The video; its frames are in the folder of this name, or in ``img1`` inside it.
        is_only_video: The frames may lie in the image folder itself.

    Returns:
        Paths relative to the image folder, in natural order; none where there is no such folder.

    Raises:
        DataError: A folder cannot be read, or a frame is a link that leads out of ``images``.
    """
    for inner in _INNER:
        relative = f"{name}/{inner}" if inner else name
        if os.path.isdir(os.path.join(images, relative)):
            names = list_files(os.path.join(images, relative), IMAGE_SUFFIXES, images)
            if names:
                return [f"{relative}/{entry}" for entry in names]
    return list_files(images, IMAGE_SUFFIXES) if is_only_video and os.path.isdir(images) else []


def frame_number(name: str) -> int | None:
    """The last number in the stem of a file name: 12 of "v1/frame_000012.png"; None without one.

    Args:
        name: File name or path.
    """
    numbers = re.findall(r"\d+", os.path.splitext(os.path.basename(name))[0])
    return int(numbers[-1]) if numbers else None


def frame_names(
    name: str,
    length: int,
    options: ReadOptions,
    default: Callable[[int], str],
    is_only_video: bool = False,
) -> list[str]:
    """Frames of a video whose annotations do not name them.

    Args:
        name: The video.
        length: Frames that the annotations need.
        options: ``images``: the folder in which they are looked for.
        default: Name of frame t where there is no image folder.
        is_only_video: As in ``listed_frames``.

    Returns:
        All frames in the image folder, or ``length`` names.

    Raises:
        DataError: The folder has fewer frames than the annotations need, or there are too many.
    """
    if length > MAX_FRAMES:
        raise DataError(f"video {name!r}: expected at most {MAX_FRAMES} frames, got {length}.")
    if options.images is None:
        return [default(t) for t in range(length)]
    names = listed_frames(options.images, name, is_only_video)
    if len(names) < length:
        folder = os.path.join(options.images, name)
        raise DataError(
            f"{folder}: the annotations of video {name!r} need {length} frames, got"
            f" {len(names)}. Check --images; --video cuts a video file into frames."
        )
    return names


def frame_size(
    name: str,
    file_names: list[str],
    options: ReadOptions,
    said: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """Size of the frames of a video.

    Args:
        name: The video.
        file_names: Its frames, relative to the image folder.
        options: ``images`` or ``size``.
        said: (height, width) of the annotations, checked, where they have it.

    Returns:
        (height, width): what the annotations say, else ``options.size``, else that of the first
        picture.

    Raises:
        DataError: Nothing says it.
    """
    if said is not None:
        return said
    if options.size is not None:
        return options.size
    if options.images is not None and file_names:
        first = os.path.join(options.images, file_names[0])
        check_inside(first, options.images, first)
        return check_frame_size(*image_size(first), first)
    raise DataError(
        f"video {name!r}: this format does not say the size of the frames. Name the folder of the"
        " frames by --images, or the size by --size WIDTHxHEIGHT."
    )
