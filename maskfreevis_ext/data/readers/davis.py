"""DAVIS 2016 and 2017: a PNG a frame, whose palette index is the object."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np

from maskfreevis_ext.data.annotation_form import AnnotationSet, LazyVideo, Video, VideoBuilder
from maskfreevis_ext.data.readers.index_png import (
    VOID,
    check_mask_size,
    frame_files,
    mask_folders,
    masks_of_values,
    read_index_png,
)
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader

#: Class of objects in formats without classes.
OBJECT = "object"
VOID_NOTE = "frames with void pixels (255), which belong to no object"


@register_reader("davis")
def read_davis(path: str, options: ReadOptions) -> AnnotationSet:
    """Read folders of PNG masks; all objects are of the class "object".

    A video whose pixels are 0 or 255 only has one object (DAVIS 2016); else 255 is void.

    Args:
        path: A DAVIS data set, a folder of mask folders, or one mask folder.
        options: ``images`` gives the endings of the frames.

    Returns:
        The videos; frames are those that have a mask file.

    Raises:
        DataError: A file cannot be used.
    """
    notes: Counter[str] = Counter()
    folders = mask_folders(path)
    lazy = [
        LazyVideo(
            name,
            partial(
                read_masks, i + 1, name, files, options, notes, lambda value: 1, len(folders) == 1
            ),
        )
        for i, (name, files) in enumerate(folders)
    ]
    return AnnotationSet(path, {1: OBJECT}, lazy, notes)


def read_masks(
    number: int,
    name: str,
    files: list[str],
    options: ReadOptions,
    notes: Counter[str],
    class_of: Callable[[int], int],
    is_only: bool,
) -> Video:
    """Read the masks of a video.

    Args:
        number: Id of the video.
        name: Its name.
        files: A PNG file for each frame.
        options: ``images``.
        notes: Counts frames with void pixels.
        class_of: Category of an object by its palette index; may raise ``DataError``.
        is_only: There is no other video.

    Returns:
        The video; track ids are palette indices.

    Raises:
        DataError: A file cannot be used, or its size differs from that of the first.
    """
    names = frame_files(name, files, options, lambda stem: f"{name}/{stem}.jpg", is_only)
    objects: set[int] = set()
    builder: VideoBuilder | None = None
    late: list[tuple[int, dict]] = []  # masks of 255, of which the whole video decides
    for t, path in enumerate(files):
        pixels = read_index_png(path, ("P", "L", "1"), "masks with a palette, or grey ones")
        if pixels.dtype == bool:
            pixels = pixels.astype(np.uint8)
        if builder is None:
            height, width = pixels.shape
            builder = VideoBuilder(Video(number, name, height, width, names), notes)
        check_mask_size(pixels, builder.video, path)
        values = [int(value) for value in np.unique(pixels) if value]
        for value, mask in zip(values, masks_of_values(pixels, values), strict=True):
            if value == VOID:
                late.append((t, mask))
                continue
            objects.add(value)
            builder.add(value, class_of(value), t, path, mask=mask)
    assert builder is not None  # a folder has files
    for t, mask in late:
        if objects:
            notes[VOID_NOTE] += 1
        else:
            builder.add(1, class_of(1), t, os.path.dirname(files[t]), mask=mask)
    return builder.build()
