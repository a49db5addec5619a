"""KITTI MOTS: a PNG of 16 bits a frame, whose pixels are class x 1000 + instance."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial

import numpy as np

from maskfreevis_ext.data.annotation_form import AnnotationSet, LazyVideo, Video, VideoBuilder
from maskfreevis_ext.data.readers.index_png import (
    check_mask_size,
    frame_files,
    mask_folders,
    masks_of_values,
    read_index_png,
)
from maskfreevis_ext.data.readers.mots import IGNORED, MOTS_CLASSES
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.data.readers.sequences import LABELS, read_labels
from maskfreevis_ext.errors import DataError

#: Pixels of regions that are not annotated.
IGNORED_VALUE = 10_000


@register_reader("kitti-mots")
def read_kitti_mots(path: str, options: ReadOptions) -> AnnotationSet:
    """Read folders of KITTI MOTS PNG files (``instances/<sequence>/<frame>.png``).

    Args:
        path: Folder of sequences, or of one.
        options: ``images`` gives the endings of the frames.

    Returns:
        The sequences; track ids are class x 1000 + instance. Classes are those of ``labels.txt``,
        else car and pedestrian.

    Raises:
        DataError: A file cannot be used, or has a pixel of an unknown class.
    """
    notes: Counter[str] = Counter()
    folders = mask_folders(path)
    places = (path, os.path.dirname(folders[0][1][0]))
    labels = next((p for p in map(_labels, places) if os.path.isfile(p)), None)
    categories = MOTS_CLASSES if labels is None else read_labels(labels)
    lazy = [
        LazyVideo(
            name,
            partial(_read_video, i + 1, name, files, categories, options, notes, len(folders) == 1),
        )
        for i, (name, files) in enumerate(folders)
    ]
    return AnnotationSet(path, dict(categories), lazy, notes)


def _labels(folder: str) -> str:
    return os.path.join(folder, LABELS)


def _read_video(
    number: int,
    name: str,
    files: list[str],
    categories: dict[int, str],
    options: ReadOptions,
    notes: Counter[str],
    is_only: bool,
) -> Video:
    names = frame_files(name, files, options, lambda stem: f"{name}/{stem}.png", is_only)
    builder: VideoBuilder | None = None
    for t, path in enumerate(files):
        pixels = read_index_png(path, ("I;16", "I", "I;16B"), "a grey PNG of 16 bits")
        if builder is None:
            height, width = pixels.shape
            builder = VideoBuilder(Video(number, name, height, width, names), notes)
        check_mask_size(pixels, builder.video, path)
        values = [int(value) for value in np.unique(pixels) if value]
        for value, mask in zip(values, masks_of_values(pixels, values), strict=True):
            if value == IGNORED_VALUE:
                notes[IGNORED] += 1
            elif value // 1000 not in categories:
                known = ", ".join(f"{i} {name}" for i, name in categories.items())
                raise DataError(
                    f"{path}: a pixel must be class x 1000 + instance with a class of {known:.200},"
                    f" or {IGNORED_VALUE} (ignored), got {value}. labels.txt beside the files can"
                    " name other classes, one a line."
                )
            else:
                builder.add(value, value // 1000, t, path, mask=mask)
    assert builder is not None  # a folder has files
    return builder.build()
