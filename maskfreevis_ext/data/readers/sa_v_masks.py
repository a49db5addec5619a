"""SA-V's validation and test sets: a PNG mask for each object and annotated frame."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from functools import partial

from maskfreevis_ext.data.annotation_form import AnnotationSet, LazyVideo, Video, VideoBuilder
from maskfreevis_ext.data.frame_files import natural_key
from maskfreevis_ext.data.readers.davis import OBJECT
from maskfreevis_ext.data.readers.files import walk_folders
from maskfreevis_ext.data.readers.index_png import check_mask_size, frame_files, read_index_png
from maskfreevis_ext.data.readers.options import ReadOptions
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.rle import encode_masks

#: Folder of the masks inside a folder of the data set.
ANNOTATIONS = "Annotations_6fps"


def mask_set(path: str, options: ReadOptions) -> AnnotationSet:
    """Read folders ``<video>/<object>/<frame>.png``; pixels above 0 are the object.

    Args:
        path: The folder of the videos, or one that has it as ``Annotations_6fps``.
        options: ``images`` gives the endings of the frames.

    Returns:
        The videos; their frames are those that have a mask file.

    Raises:
        DataError: There is no such file, or a folder lies elsewhere.
    """
    inner = os.path.join(path, ANNOTATIONS)
    root = inner if os.path.isdir(inner) else path
    videos: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for folder, names in walk_folders(root, ".png"):
        video, _, number = folder.rpartition("/")
        if not video:
            raise DataError(
                f"{os.path.join(root, folder)}: expected masks in folders <video>/<object>. Folders"
                " of index masks are read by --from davis."
            )
        videos[video][number] = names
    if not videos:
        raise DataError(f"{root}: expected JSON files or PNG masks of SA-V, but there is none.")
    notes: Counter[str] = Counter()
    lazy = [
        LazyVideo(
            name,
            partial(_read_video, i, name, root, objects, options, notes, len(videos) == 1),
        )
        for i, (name, objects) in enumerate(videos.items(), start=1)
    ]
    return AnnotationSet(path, {1: OBJECT}, lazy, notes)


def _read_video(
    number: int,
    name: str,
    root: str,
    objects: dict[str, list[str]],
    options: ReadOptions,
    notes: Counter[str],
    is_only: bool,
) -> Video:
    masks = sorted({mask for names in objects.values() for mask in names}, key=natural_key)
    names = frame_files(name, masks, options, lambda stem: f"{name}/{stem}.jpg", is_only)
    frames = {mask: t for t, mask in enumerate(masks)}
    is_numbered = all(key.isascii() and key.isdecimal() for key in objects)
    builder: VideoBuilder | None = None
    for key, files in objects.items():
        for file in files:
            path = os.path.join(root, name, key, file)
            pixels = read_index_png(path, ("P", "L", "1"), "a mask")
            if builder is None:
                height, width = pixels.shape
                builder = VideoBuilder(Video(number, name, height, width, names), notes)
            check_mask_size(pixels, builder.video, path)
            mask = encode_masks((pixels > 0)[None])[0]
            track = int(key) if is_numbered else key
            builder.add(track, 1, frames[file], path, mask=mask)
    assert builder is not None  # a video has files
    return builder.build()
