"""LabelMe: a JSON a frame, with shapes; ``group_id`` is the object that a shape belongs to."""

from __future__ import annotations

import base64
import io
import math
import os
from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from maskfreevis_ext.data.annotation_form import (
    AnnotationSet,
    LazyVideo,
    Video,
    VideoBuilder,
    check_frame_size,
)
from maskfreevis_ext.data.json_fields import (
    MAX_ID,
    MAX_NAME,
    Entry,
    list_of,
    path_fault,
    read_json,
)
from maskfreevis_ext.data.pictures import open_picture
from maskfreevis_ext.data.readers.files import walk_folders
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.polygons import segmentation_to_rle
from maskfreevis_ext.rle import encode_masks, is_finite_number, merge_rles

OTHER_SHAPES = "shapes that are no polygon, rectangle, circle or mask left out"
NO_GROUP = "shapes without group_id, each read as a track of one frame"

_CIRCLE_POINTS = 72


@register_reader("labelme")
def read_labelme(path: str, options: ReadOptions) -> AnnotationSet:
    """Read LabelMe's JSON files; the files of a folder are the frames of a video.

    Shapes of one ``group_id`` and label are one object; several in a frame are its parts.

    Args:
        path: Folder of such files, or of such folders.
        options: Not needed.

    Returns:
        The videos, in natural order of the files.

    Raises:
        DataError: A file or a shape cannot be used.
    """
    folders = walk_folders(path, ".json")
    if not folders:
        raise DataError(f"{path}: expected JSON files of LabelMe, but there is none.")
    top = os.path.basename(os.path.abspath(path)) or "video"
    labels: dict[str, None] = {}
    for folder, names in folders:
        for name in names:
            file = os.path.join(path, folder, name)
            for shape in list_of(file, read_json(file), "shapes"):
                label = shape.text("label")
                labels.setdefault(label)
    categories = dict(enumerate(sorted(labels), start=1))
    numbers = {name: number for number, name in categories.items()}
    notes: Counter[str] = Counter()

    def load(i: int) -> Video:
        folder, names = folders[i]
        files = [os.path.join(path, folder, name) for name in names]
        return _read_video(i + 1, folder or top, folder, files, numbers, notes)

    lazy = [LazyVideo(folder or top, partial(load, i)) for i, (folder, _) in enumerate(folders)]
    return AnnotationSet(path, categories, lazy, notes)


def _read_video(
    number: int,
    name: str,
    folder: str,
    files: list[str],
    categories: dict[str, int],
    notes: Counter[str],
) -> Video:
    builder: VideoBuilder | None = None
    names: list[str] = []
    contents = [Entry(file, "the file", read_json(file)) for file in files]
    for entry in contents:
        size = check_frame_size(
            entry.content.get("imageHeight"), entry.content.get("imageWidth"), entry.json_file
        )
        picture = entry.content.get("imagePath")
        if not isinstance(picture, str) or not 0 < len(picture) <= MAX_NAME:
            raise entry.fail("imagePath", f"a path of 1 to {MAX_NAME} characters")
        base = picture.replace("\\", "/").rsplit("/", 1)[-1]  # LabelMe writes ../images/1.jpg
        if path_fault(base):
            raise entry.fail("imagePath", f"such that its last part is {path_fault(base)}")
        names.append(f"{folder}/{base}" if folder else base)
        if builder is None:
            builder = VideoBuilder(Video(number, name, *size, names), notes, drops_outside=True)
        elif size != (builder.video.height, builder.video.width):
            raise entry.fail(
                "imageWidth",
                f"{builder.video.width}, and imageHeight {builder.video.height}, as in"
                f" {contents[0].json_file}",
                "The files of a folder are the frames of one video.",
            )
    assert builder is not None  # a folder has files
    for t, entry in enumerate(contents):
        _add_frame(builder, t, entry, categories)
    return builder.build()


def _add_frame(builder: VideoBuilder, t: int, entry: Entry, categories: dict[str, int]) -> None:
    height, width = builder.video.height, builder.video.width
    # Rectangles and masks of each object, in the order of the file.
    found: dict[Any, tuple[list[list[float]], list[dict[str, Any]]]] = {}
    for i, shape in enumerate(list_of(entry.json_file, entry.content, "shapes")):
        key = _key(shape, t, i, builder.notes)
        parts = found.setdefault(key, ([], []))
        kind = shape.content.get("shape_type", "polygon")
        if kind == "rectangle":
            parts[0].append(_rectangle(shape))
            continue
        mask = _mask(shape, kind, height, width)
        if mask is None:
            builder.notes[OTHER_SHAPES] += 1
            continue
        rle, _, dropped = segmentation_to_rle(mask, height, width, shape.name("points"))
        builder.notes["polygons dropped (fewer than 3 points)"] += dropped
        if rle is not None:
            parts[1].append(rle)
    for key, (boxes, masks) in found.items():
        if not boxes and not masks:
            continue  # counted above
        merged = merge_rles(masks) if masks else None
        box = _union(boxes) if boxes else None
        where = f"{entry.json_file}: the shapes of group {key[0]!r}"
        builder.add(key, categories[key[1]], t, where, box=box, mask=merged)


def _key(shape: Entry, t: int, i: int, notes: Counter[str]) -> tuple[Any, str]:
    group = shape.content.get("group_id")
    if group is None:
        notes[NO_GROUP] += 1
        return f"{t}.{i}", shape.content["label"]
    if type(group) is not int or not 0 <= group <= MAX_ID:
        raise shape.fail("group_id", f"an integer in 0..{MAX_ID} or null")
    return group, shape.content["label"]


def _points(shape: Entry, least: int) -> list[float]:
    points = shape.content.get("points")
    if not isinstance(points, list) or len(points) < least:
        raise shape.fail("points", f"a list of at least {least} points [x, y]")
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not all(map(is_finite_number, point)):
            raise shape.fail("points", "a list of points [x, y] of finite numbers")
    return [float(number) for point in points for number in point]


def _rectangle(shape: Entry) -> list[float]:
    x0, y0, x1, y1 = _points(shape, 2)[:4]
    return [min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)]


def _union(boxes: list[list[float]]) -> list[float]:
    if len(boxes) == 1:
        return boxes[0]
    x0, y0 = min(box[0] for box in boxes), min(box[1] for box in boxes)
    x1, y1 = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return [x0, y0, x1 - x0, y1 - y0]


def _mask(shape: Entry, kind: Any, height: int, width: int) -> Any:
    """Polygons or RLE of a shape; None for a kind that has no area."""
    if kind == "polygon":
        return [_points(shape, 1)]
    if kind == "circle":
        x, y, edge_x, edge_y = _points(shape, 2)[:4]
        radius = math.hypot(edge_x - x, edge_y - y)
        angles = [2 * math.pi * k / _CIRCLE_POINTS for k in range(_CIRCLE_POINTS)]
        return [[f for a in angles for f in (x + radius * math.cos(a), y + radius * math.sin(a))]]
    return _picture(shape, height, width) if kind == "mask" else None


def _picture(shape: Entry, height: int, width: int) -> dict[str, Any]:
    """RLE of a mask that is a PNG in base64, whose corners are the points."""
    corners = _points(shape, 2)
    left, top = (round(number) for number in corners[:2])
    text = shape.content.get("mask")
    if not isinstance(text, str):
        raise shape.fail("mask", "a PNG in base64")
    try:
        data = io.BytesIO(base64.b64decode(text, validate=True))
        with open_picture(data, shape.name("mask"), formats=("PNG",)) as image:
            if image.height > height or image.width > width:
                raise shape.fail("mask", f"a PNG of at most {width} x {height} pixels, the frame")
            pixels = np.asarray(image.convert("L")) > 0
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever its decoders meet
        raise shape.fail("mask", f"a PNG in base64 ({type(error).__name__})") from None
    h, w = pixels.shape
    if not (0 <= left <= width - w and 0 <= top <= height - h):
        raise shape.fail("points", f"such that the mask of {w} x {h} pixels lies in the frame")
    mask = np.zeros((1, height, width), dtype=bool)
    mask[0, top : top + h, left : left + w] = pixels
    return encode_masks(mask)[0]
