"""Plain CSV: one object of one frame a line, with the columns named in the first line."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from functools import partial
from typing import Any

from maskfreevis_ext.data.annotation_form import (
    AnnotationSet,
    LazyVideo,
    Video,
    VideoBuilder,
    check_frame_size,
)
from maskfreevis_ext.data.format_hints import as_corners
from maskfreevis_ext.data.json_fields import MAX_NAME, path_fault
from maskfreevis_ext.data.readers.files import read_text, real_number, whole_number
from maskfreevis_ext.data.readers.frames import frame_names, frame_size
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.errors import DataError

COLUMNS = ("video", "frame", "id", "class", "x", "y", "w", "h")
#: Columns that may be absent: the size of the frames and the file of the frame.
EXTRA_COLUMNS = ("frame_width", "frame_height", "file_name")


@register_reader("csv")
def read_csv(path: str, options: ReadOptions) -> AnnotationSet:
    """Read a CSV file with the columns video, frame, id, class, x, y, w, h, in any order.

    Frames count from 0 (``options.first_frame`` says otherwise). A video is as long as its last
    line, or its folder of frames, says. Classes are numbered from 1 in the order of their names.

    Args:
        path: The file, in UTF-8, with commas, semicolons or tabs.
        options: ``images`` or ``size``, where the file has no columns frame_width, frame_height;
            ``corners``.

    Returns:
        The videos, in the order of their first lines.

    Raises:
        DataError: The file, a column or a line cannot be used.
    """
    rows: dict[str, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    classes: set[str] = set()
    for line, row in _rows(path):
        if path_fault(row["video"]):
            raise DataError(
                f"{path}: line {line}: video must be {path_fault(row['video'])}, got"
                f" {row['video']!r:.60}."
            )
        if not 0 < len(row["class"]) <= MAX_NAME:
            raise DataError(f"{path}: line {line}: class must have 1..{MAX_NAME} characters.")
        rows[row["video"]].append((line, row))
        classes.add(row["class"])
    if not rows:
        raise DataError(f"{path}: has no line below the names of the columns.")
    numbers = {name: number for number, name in enumerate(sorted(classes), start=1)}
    notes: Counter[str] = Counter()
    names = list(rows)
    lazy = [
        LazyVideo(
            name,
            partial(
                _read_video, path, i + 1, name, rows[name], numbers, options, notes, len(names) == 1
            ),
        )
        for i, name in enumerate(names)
    ]
    return AnnotationSet(path, {n: name for name, n in numbers.items()}, lazy, notes)


def _rows(path: str) -> list[tuple[int, dict[str, str]]]:
    text = read_text(path)
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        missing = [name for name in COLUMNS if name not in names]
        if missing or len(set(names)) != len(names):
            raise DataError(
                f"{path}: line 1 must name the columns {', '.join(COLUMNS)}, each once, got"
                f" {', '.join(names)!r:.120}."
            )
        rows = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"{path}: line {reader.line_num}: expected {len(names)} cells, got"
                    f" {len(cells)}."
                )
            cells = [cell.strip() for cell in cells]
            rows.append((reader.line_num, dict(zip(names, cells, strict=True))))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: expected CSV: {error}.") from None
    return rows


def _read_video(
    path: str,
    number: int,
    name: str,
    rows: list[tuple[int, dict[str, str]]],
    classes: dict[str, int],
    options: ReadOptions,
    notes: Counter[str],
    is_only_video: bool,
) -> Video:
    first = options.first_frame or 0
    frames = [
        whole_number(row["frame"], f"{path}: line {line}: frame", first) - first
        for line, row in rows
    ]
    said = _said_size(path, rows)
    names = _file_names(path, rows, frames)
    default = names.get
    length = max(frames) + 1
    file_names = frame_names(
        name, length, options, lambda t: default(t) or f"{name}/{t:05d}.jpg", is_only_video
    )
    height, width = frame_size(name, file_names, options, said)
    builder = VideoBuilder(Video(number, name, height, width, file_names), notes)
    for frame, (line, row) in zip(frames, rows, strict=True):
        where = f"{path}: line {line}"
        box: Any = [real_number(row[side], f"{where}: {side}") for side in "xywh"]
        box = as_corners(box) if options.corners else box
        builder.add(_key(row["id"], where), classes[row["class"]], frame, where, box=box)
    return builder.build()


def _key(text: str, where: str) -> Any:
    if not 0 < len(text) <= MAX_NAME:
        raise DataError(f"{where}: id must have 1..{MAX_NAME} characters.")
    is_plain = text.isascii() and text.isdecimal() and (text == "0" or text[0] != "0")
    return int(text) if is_plain else text


def _said_size(path: str, rows: list[tuple[int, dict[str, str]]]) -> tuple[int, int] | None:
    """(height, width) of the columns, the same in every line."""
    line, row = rows[0]
    if not row.get("frame_width") or not row.get("frame_height"):
        return None
    sides = [row["frame_height"], row["frame_width"]]
    for other, cells in rows:
        if [cells["frame_height"], cells["frame_width"]] != sides:
            raise DataError(
                f"{path}: line {other}: frame_width and frame_height differ from those of line"
                f" {line}, of the same video."
            )
    where = f"{path}: line {line}"
    height, width = (whole_number(side, f"{where}: frame_height, frame_width") for side in sides)
    return check_frame_size(height, width, where)


def _file_names(
    path: str, rows: list[tuple[int, dict[str, str]]], frames: list[int]
) -> dict[int, str]:
    names: dict[int, str] = {}
    for frame, (line, row) in zip(frames, rows, strict=True):
        name = row.get("file_name")
        if not name:
            continue
        if path_fault(name) or names.setdefault(frame, name) != name:
            raise DataError(
                f"{path}: line {line}: file_name must be a path under the image folder, the same"
                f" in all lines of a frame, got {name!r:.60}."
            )
    return names
