"""YouTube-VOS: PNG masks with palette indices, and the classes of objects in ``meta.json``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial

from maskfreevis_ext.data.annotation_form import AnnotationSet, LazyVideo, Video
from maskfreevis_ext.data.json_fields import MAX_NAME, Entry, read_json
from maskfreevis_ext.data.readers.davis import OBJECT, read_masks
from maskfreevis_ext.data.readers.index_png import mask_folders
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.errors import DataError

UNNAMED = "videos that meta.json does not name, whose objects are of the class 'object'"


@register_reader("youtube-vos")
def read_youtube_vos(path: str, options: ReadOptions) -> AnnotationSet:
    """Read a YouTube-VOS folder: ``meta.json`` and ``Annotations/<video>/<frame>.png``.

    Args:
        path: The folder.
        options: ``images`` gives the endings of the frames.

    Returns:
        The videos; frames are those that have a mask file.

    Raises:
        DataError: A file cannot be used, or a mask has an object that ``meta.json`` does not name.
    """
    meta_file = os.path.join(path, "meta.json")
    meta = Entry(meta_file, "the file", read_json(meta_file))
    classes = _classes(meta)
    names = {name for objects in classes.values() for name in objects.values()}
    folders = mask_folders(path)
    notes: Counter[str] = Counter()
    if any(video not in classes for video, _ in folders):
        names.add(OBJECT)
    categories = dict(enumerate(sorted(names), start=1))
    numbers = {name: number for number, name in categories.items()}

    def class_of(video: str) -> Callable[[int], int]:
        def find(value: int) -> int:
            if video not in classes:
                return numbers[OBJECT]
            if value not in classes[video]:
                raise DataError(
                    f"{meta_file}: video {video!r} has an object {value} in its masks, but no"
                    f" 'objects' entry {str(value)!r}."
                )
            return numbers[classes[video][value]]

        return find

    def load(i: int) -> Video:
        name, files = folders[i]
        notes[UNNAMED] += name not in classes
        find = class_of(name)
        return read_masks(i + 1, name, files, options, notes, find, len(folders) == 1)

    lazy = [LazyVideo(name, partial(load, i)) for i, (name, _) in enumerate(folders)]
    return AnnotationSet(path, categories, lazy, notes)


def _classes(meta: Entry) -> dict[str, dict[int, str]]:
    """Class names by object index, by video."""
    videos = meta.content.get("videos")
    if not isinstance(videos, dict):
        raise meta.fail("videos", "an object with an entry for each video")
    found: dict[str, dict[int, str]] = {}
    for video, content in videos.items():
        entry = Entry(meta.json_file, f"videos[{video!r:.60}]", content)
        objects = entry.content.get("objects")
        if not isinstance(objects, dict):
            raise entry.fail("objects", "an object with an entry for each object")
        found[video] = {}
        for key, item in objects.items():
            place = Entry(meta.json_file, f"{entry.place}.objects[{key!r:.60}]", item)
            if not (key.isascii() and key.isdecimal() and len(key) < 4):
                raise DataError(f"{meta.json_file}: {place.place}: the key must be 1..255.")
            name = place.content.get("category", OBJECT)
            if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
                raise place.fail("category", f"a name of 1 to {MAX_NAME} characters")
            found[video][int(key)] = name
    return found
