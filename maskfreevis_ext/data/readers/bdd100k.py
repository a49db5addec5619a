"""BDD100K's labels of 2020, in Scalabel's form: frames with boxes, RLEs or polygons."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from functools import partial
from typing import Any

from maskfreevis_ext.data.annotation_form import (
    MAX_FRAMES,
    AnnotationSet,
    LazyVideo,
    Video,
    VideoBuilder,
    check_frame_size,
)
from maskfreevis_ext.data.frame_files import natural_key
from maskfreevis_ext.data.json_fields import MAX_NAME, Entry, path_fault, read_json_value, short
from maskfreevis_ext.data.readers.files import files_of, video_name
from maskfreevis_ext.data.readers.frames import frame_size, listed_frames
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.errors import DataError

#: Size of BDD100K's frames, where neither file nor pictures say another.
BDD_SIZE = (720, 1280)
NO_SHAPE = "labels without box2d, rle and poly2d left out"
CURVES = "polygons with curves left out"


@register_reader("bdd100k")
def read_bdd100k(path: str, options: ReadOptions) -> AnnotationSet:
    """Read Scalabel JSON: a list of frames, or an object with ``frames`` and ``config``.

    ``box2d`` has the first and the last pixel, as Scalabel's own tools say: a box is x2 - x1 + 1
    wide.

    Args:
        path: A file, or a folder of files (BDD100K has one a video).
        options: ``size`` or ``images``, where frames have another size than 1280 x 720.

    Returns:
        The videos (``videoName``); frames in the order of ``frameIndex``.

    Raises:
        DataError: A file, a frame or a label cannot be used.
    """
    frames: dict[str, list[Entry]] = defaultdict(list)
    said: dict[str, tuple[int, int]] = {}
    classes: dict[str, None] = {}
    for file in files_of(path, ".json", "JSON files of BDD100K"):
        _collect(file, frames, said, classes)
    categories = dict(enumerate(classes, start=1))
    numbers = {name: number for number, name in categories.items()}
    notes: Counter[str] = Counter()
    names = list(frames)

    def load(i: int) -> Video:
        name = names[i]
        return _read_video(i + 1, name, frames[name], said.get(name), numbers, options, notes)

    lazy = [LazyVideo(name, partial(load, i)) for i, name in enumerate(names)]
    return AnnotationSet(path, categories, lazy, notes)


def _collect(
    file: str,
    frames: dict[str, list[Entry]],
    said: dict[str, tuple[int, int]],
    classes: dict[str, None],
) -> None:
    """Add the frames of a file to their videos, its classes, and the size that it says."""
    content = read_json_value(file)
    config: Any = {}
    if isinstance(content, dict):
        config = content.get("config") or {}
        content = content.get("frames")
    if not isinstance(content, list) or not isinstance(config, dict):
        raise DataError(f"{file}: expected a list of frames, got {short(content)}.")
    size = _size(config.get("imageSize"), f"{file}: config.imageSize")
    for item in config.get("categories") or []:
        if isinstance(item, dict) and isinstance(item.get("name"), str) and item["name"]:
            classes.setdefault(item["name"])
    stem = video_name(os.path.splitext(os.path.basename(file))[0])
    for i, item in enumerate(content):
        entry = Entry(file, f"frames[{i}]", item)
        title = entry.content.get("videoName", entry.content.get("video_name"))
        name = video_name(title, stem) if isinstance(title, str) and title else stem
        frames[name].append(entry)
        own = _size(entry.content.get("size"), entry.name("size")) or size
        if own is not None:
            if said.setdefault(name, own) != own:
                raise entry.fail("size", "that of the other frames of the video")
        for label in _labels(entry):
            category = label.content.get("category")
            if not isinstance(category, str) or not 0 < len(category) <= MAX_NAME:
                raise label.fail("category", f"a name of 1 to {MAX_NAME} characters")
            classes.setdefault(category)


def _size(value: Any, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DataError(f"{where} must have 'width' and 'height', got {short(value)}.")
    return check_frame_size(value.get("height"), value.get("width"), where)


def _labels(frame: Entry) -> list[Entry]:
    labels = frame.content.get("labels")
    if labels is None:
        return []
    if not isinstance(labels, list):
        raise frame.fail("labels", "a list")
    return [
        Entry(frame.json_file, f"{frame.place}.labels[{i}]", item) for i, item in enumerate(labels)
    ]


def _read_video(
    number: int,
    name: str,
    frames: list[Entry],
    said: tuple[int, int] | None,
    categories: dict[str, int],
    options: ReadOptions,
    notes: Counter[str],
) -> Video:
    frames = _in_order(frames)
    names = [_file_name(frame, name) for frame in frames]
    if options.images is not None:
        by_base = {os.path.basename(path): path for path in listed_frames(options.images, name)}
        names = [by_base.get(os.path.basename(path), path) for path in names]
    if said is None and options.size is None and options.images is None:
        said = BDD_SIZE
    height, width = frame_size(name, names, options, said)
    builder = VideoBuilder(Video(number, name, height, width, names), notes, drops_outside=True)
    for t, frame in enumerate(frames):
        for label in _labels(frame):
            _add(builder, label, categories, t)
    return builder.build()


def _in_order(frames: list[Entry]) -> list[Entry]:
    for field in ("frameIndex", "index"):
        if all(frame.content.get(field) is not None for frame in frames):
            taken: dict[int, Entry] = {}
            for frame in frames:
                index = frame.integer(field, 0, MAX_FRAMES)
                if index in taken:
                    raise frame.fail(field, f"unique, but {taken[index].place} has it too")
                taken[index] = frame
            return [taken[index] for index in sorted(taken)]
    return sorted(frames, key=lambda frame: natural_key(str(frame.content.get("name", ""))))


def _file_name(frame: Entry, video: str) -> str:
    fault = path_fault(frame.content.get("name"))
    if fault is not None:
        raise frame.fail("name", fault)
    name = frame.content["name"]
    return name if "/" in name else f"{video}/{name}"


def _add(builder: VideoBuilder, label: Entry, categories: dict[str, int], t: int) -> None:
    content = label.content
    key = content.get("id")
    if not isinstance(key, (str, int)) or isinstance(key, bool):
        raise label.fail("id", "the name or number of the object's track")
    if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 16:
        key = int(key)
    attributes = content.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    box = _box(label)
    mask = content.get("rle")
    if mask is None and content.get("poly2d"):
        mask = _polygons(label, builder.notes)
    if box is None and mask is None:
        builder.notes[NO_SHAPE] += 1
        return
    builder.add(
        key,
        categories[content["category"]],
        t,
        label.name("rle" if mask is not None else "box2d"),
        box=box,
        mask=mask,
        occluded=attributes.get("occluded", attributes.get("Occluded")) is True,
        is_crowd=attributes.get("crowd", attributes.get("Crowd")) is True,
    )


def _box(label: Entry) -> list[float] | None:
    raw = label.content.get("box2d")
    if raw is None:
        return None
    corners = Entry(label.json_file, f"{label.place}.box2d", raw)
    sides = [corners.content.get(side) for side in ("x1", "y1", "x2", "y2")]
    if any(not isinstance(side, (int, float)) or isinstance(side, bool) for side in sides):
        raise label.fail("box2d", "an object with the numbers x1, y1, x2, y2")
    x1, y1, x2, y2 = sides
    return [x1, y1, x2 - x1 + 1, y2 - y1 + 1]


def _polygons(label: Entry, notes: Counter[str]) -> list[list[float]] | None:
    if not isinstance(label.content["poly2d"], list):
        raise label.fail("poly2d", "a list of polygons")
    polygons = []
    for i, item in enumerate(label.content["poly2d"]):
        entry = Entry(label.json_file, f"{label.place}.poly2d[{i}]", item)
        vertices, types = entry.content.get("vertices"), entry.content.get("types")
        if not isinstance(vertices, list) or any(
            not isinstance(v, list) or len(v) != 2 for v in vertices
        ):
            raise entry.fail("vertices", "a list of [x, y]")
        if isinstance(types, str) and "C" in types:
            notes[CURVES] += 1
            continue
        polygons.append([number for vertex in vertices for number in vertex])
    return polygons or None
