"""BURST and TAO: JSON of videos of which some frames are annotated."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from maskfreevis_ext.data.annotation_form import (
    AnnotationSet,
    LazyVideo,
    Video,
    VideoBuilder,
    check_frame_size,
)
from maskfreevis_ext.data.categories import read_categories
from maskfreevis_ext.data.json_fields import MAX_ID, MAX_NAME, Entry, list_of, path_fault, read_json
from maskfreevis_ext.data.readers.coco_video import coco_video_set
from maskfreevis_ext.data.readers.davis import OBJECT
from maskfreevis_ext.data.readers.files import unique_names, video_name
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.errors import DataError


@register_reader("burst")
def read_burst(path: str, options: ReadOptions) -> AnnotationSet:
    """Read a BURST JSON (``sequences``), or a TAO JSON (``videos``, ``images``, ``tracks``).

    Args:
        path: The file.
        options: Not needed.

    Returns:
        The videos; their frames are the annotated ones.

    Raises:
        DataError: The file, a sequence or a mask cannot be used.
    """
    content = read_json(path)
    if "sequences" not in content:
        return coco_video_set(path, _with_track_classes(path, content))
    sequences = list_of(path, content, "sequences")
    if not sequences:
        raise DataError(f"{path}: 'sequences' is empty. Expected at least one sequence.")
    categories = read_categories(path, content) if content.get("categories") else {}
    if not categories:
        categories = {1: OBJECT}
    notes: Counter[str] = Counter()
    names = unique_names(_name(entry) for entry in sequences)

    def load(i: int) -> Video:
        return _read_sequence(i + 1, names[i], sequences[i], categories, notes)

    lazy = [LazyVideo(name, partial(load, i)) for i, name in enumerate(names)]
    return AnnotationSet(path, categories, lazy, notes)


def _with_track_classes(path: str, content: dict[str, Any]) -> dict[str, Any]:
    """TAO's annotations with the class of their track, where they lack their own."""
    if not isinstance(content.get("tracks"), list):
        return content
    classes = {
        track["id"]: track.get("category_id")
        for track in content["tracks"]
        if isinstance(track, dict) and type(track.get("id")) is int
    }
    annotations = []
    for entry in list_of(path, content, "annotations"):
        item = entry.content
        if "category_id" not in item and type(item.get("track_id")) is int:
            if item["track_id"] not in classes:
                raise entry.fail("track_id", "the id of an entry of 'tracks'")
            item = {**item, "category_id": classes[item["track_id"]]}
        annotations.append(item)
    return {**content, "annotations": annotations}


def _name(entry: Entry) -> str:
    title, source = entry.content.get("seq_name"), entry.content.get("dataset")
    if not isinstance(title, str):
        raise entry.fail("seq_name", "the name of the sequence")
    return video_name(f"{source}/{title}" if isinstance(source, str) and source else title)


def _read_sequence(
    number: int, name: str, entry: Entry, categories: dict[int, str], notes: Counter[str]
) -> Video:
    height, width = check_frame_size(
        entry.content.get("height"), entry.content.get("width"), entry.name("width")
    )
    paths = entry.content.get("annotated_image_paths")
    if not isinstance(paths, list) or not paths:
        raise entry.fail("annotated_image_paths", "a list of one path a frame")
    for i, path in enumerate(paths):
        fault = path_fault(path)
        if fault is not None:
            raise entry.fail(f"annotated_image_paths[{i}]", fault)
    names = [f"{name}/{path}" for path in paths]
    frames = entry.content.get("segmentations")
    if not isinstance(frames, list) or len(frames) != len(paths):
        raise entry.fail(
            "segmentations", f"a list of {len(paths)} objects, one for each annotated frame"
        )
    classes = entry.content.get("track_category_ids") or {}
    if not isinstance(classes, dict):
        raise entry.fail("track_category_ids", "an object of category ids by track")
    builder = VideoBuilder(Video(number, name, height, width, names), notes)
    for t, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise entry.fail(f"segmentations[{t}]", "an object of masks by track")
        for key, item in frame.items():
            where = f"{entry.name('segmentations')}[{t}][{key!r:.60}]"
            category_id = _class(classes, key, categories, entry)
            mask = item.get("rle") if isinstance(item, dict) else item
            if not isinstance(mask, str):
                raise DataError(f"{where}.rle must be the text of an RLE.")
            rle = {"size": [height, width], "counts": mask}
            builder.add(_key(key), category_id, t, where, mask=rle)
    return builder.build()


def _key(text: str) -> int | str:
    is_plain = text.isascii() and text.isdecimal() and int(text[:20]) <= MAX_ID
    return int(text) if is_plain and len(text) < 17 else text[:MAX_NAME]


def _class(classes: dict[str, Any], key: str, categories: dict[int, str], entry: Entry) -> int:
    if not classes and len(categories) == 1:
        return next(iter(categories))
    number = classes.get(key)
    if type(number) is not int or number not in categories:
        raise DataError(
            f"{entry.name('track_category_ids')}[{key!r:.60}] must be the id of an entry of"
            f" 'categories', got {number!r:.60}."
        )
    return number
