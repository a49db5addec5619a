"""YOLO text files with tracks: one file a frame, one object a line, sides as parts of the frame."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from functools import partial

from maskfreevis_ext.config.yaml_check import MAX_BYTES, read_plain_yaml
from maskfreevis_ext.data.annotation_form import (
    MAX_FRAMES,
    AnnotationSet,
    LazyVideo,
    Video,
    VideoBuilder,
)
from maskfreevis_ext.data.json_fields import MAX_NAME, short
from maskfreevis_ext.data.readers.files import read_text, real_number, walk_folders, whole_number
from maskfreevis_ext.data.readers.frames import (
    frame_names,
    frame_number,
    frame_size,
    listed_frames,
)
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.data.readers.sequences import read_labels
from maskfreevis_ext.errors import ConfigError, DataError

#: Text files that hold no objects.
_NAMES = ("classes.txt", "labels.txt", "obj.names")
_YAML = ("data.yaml", "dataset.yaml")
MAX_CLASS = 9_999
NO_TRACK = "objects without a track (the tracker had not confirmed them) left out"

Files = list[tuple[int, str]]  # number of the frame, path


@register_reader("yolo-tracks")
def read_yolo_tracks(path: str, options: ReadOptions) -> AnnotationSet:
    """Read YOLO files as ``yolo track save_txt=True`` writes them.

    A line is ``class x y width height id``, or ``class x y width height confidence id``, with the
    centre and the sides of the box as parts of the frame; or ``class x0 y0 x1 y1 ... id`` with a
    polygon. ``walk_12.txt`` is frame 12 of the video "walk", ``12.txt`` of the video that its
    folder is named after. Frames count from 1, or from 0 if a file says so. Where the pictures
    have the numbers of the files, they decide.

    Args:
        path: Folder with the files, at any depth; ``classes.txt`` or ``data.yaml`` name classes.
        options: ``images`` or ``size``, as the files do not hold the size of frames.

    Returns:
        The videos.

    Raises:
        DataError: A file or a line cannot be used.
    """
    videos: dict[str, Files] = defaultdict(list)
    for folder, names in walk_folders(path, ".txt"):
        for name in names:
            if name.lower() in _NAMES:
                continue
            file = os.path.join(path, folder, name)
            number = frame_number(name)
            if number is None or number > MAX_FRAMES:
                raise DataError(
                    f"{file}: the name must end with the number of the frame, as in walk_12.txt."
                )
            videos[_video(path, folder, name)].append((number, file))
    if not videos:
        raise DataError(f"{path}: expected text files of frames, but there is none.")
    categories = _categories(path, videos)
    notes: Counter[str] = Counter()
    titles = list(videos)

    def load(i: int) -> Video:
        name = titles[i]
        return _read_video(i + 1, name, videos[name], categories, options, notes, len(titles) == 1)

    lazy = [LazyVideo(name, partial(load, i)) for i, name in enumerate(titles)]
    return AnnotationSet(path, {i + 1: name for i, name in categories.items()}, lazy, notes)


def _video(root: str, folder: str, name: str) -> str:
    prefix = re.sub(r"\d+$", "", os.path.splitext(name)[0]).rstrip("_- ")
    parts = [part for part in folder.split("/") if part and part.lower() != "labels"]
    if prefix.lower() not in ("", "frame", "img", "image"):
        parts.append(prefix)
    top = os.path.basename(os.path.abspath(root))
    if not parts and top.lower() == "labels":
        top = os.path.basename(os.path.dirname(os.path.abspath(root)))
    return "/".join(parts) or top or "video"


def _categories(path: str, videos: dict[str, Files]) -> dict[int, str]:
    """Class names by number from 0."""
    places = dict.fromkeys((path, os.path.dirname(os.path.abspath(path))))
    for place in places:
        for name in _NAMES:
            if os.path.isfile(os.path.join(place, name)):
                labels = read_labels(os.path.join(place, name))
                return {number - 1: label for number, label in labels.items()}
        for name in _YAML:
            if os.path.isfile(os.path.join(place, name)):
                return _yaml_names(os.path.join(place, name))
    numbers: set[int] = set()
    for files in videos.values():
        for _, file in files:
            for line, text in enumerate(read_text(file).splitlines(), start=1):
                if text.strip():
                    where = f"{file}: line {line}: class"
                    numbers.add(whole_number(text.split()[0], where, high=MAX_CLASS))
    return {number: f"class_{number}" for number in sorted(numbers)}


def _yaml_names(path: str) -> dict[int, str]:
    try:
        content = read_plain_yaml(read_text(path, max_bytes=MAX_BYTES), path)
    except ConfigError as error:  # the name of what is wrong with a config file
        raise DataError(str(error)) from None
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(
        type(number) is int
        and 0 <= number <= MAX_CLASS
        and isinstance(name, str)
        and 0 < len(name) <= MAX_NAME
        for number, name in names.items()
    ):
        raise DataError(f"{path}: 'names' must list the classes, got {short(names)}.")
    return names


def _read_video(
    number: int,
    name: str,
    files: Files,
    categories: dict[int, str],
    options: ReadOptions,
    notes: Counter[str],
    is_only: bool,
) -> Video:
    indices, names = _frames(name, files, options, is_only)
    height, width = frame_size(name, names, options)
    builder = VideoBuilder(Video(number, name, height, width, names), notes, drops_outside=True)
    for frame, (_, file) in zip(indices, files, strict=True):
        for line, text in enumerate(read_text(file).splitlines(), start=1):
            if text.strip():
                _add(builder, frame, text.split(), categories, f"{file}: line {line}")
    return builder.build()


def _frames(
    name: str, files: Files, options: ReadOptions, is_only: bool
) -> tuple[list[int], list[str]]:
    """Index of the frame of each file, and the names of the frames."""
    numbers = [number for number, _ in files]
    if len(set(numbers)) < len(numbers):
        raise DataError(
            f"{files[0][1]}: two files of video {name!r} have the same number of a frame."
        )
    if options.images is not None and options.first_frame is None:
        listed = listed_frames(options.images, name, is_only)
        places = {frame_number(path): i for i, path in enumerate(listed)}
        if all(number in places for number in numbers):
            return [places[number] for number in numbers], listed
    first = options.first_frame
    if first is None:
        first = 0 if 0 in numbers else 1
    if min(numbers) < first:
        raise DataError(f"{files[0][1]}: frames count from {first}, got {min(numbers)}.")
    names = frame_names(
        name, max(numbers) - first + 1, options, lambda t: f"{name}/{t:05d}.jpg", is_only
    )
    return [number - first for number in numbers], names


def _add(
    builder: VideoBuilder, frame: int, cells: list[str], categories: dict[int, str], where: str
) -> None:
    class_id = whole_number(cells[0], f"{where}: class", high=MAX_CLASS)
    if class_id not in categories:
        raise DataError(f"{where}: class {class_id} has no name in classes.txt or data.yaml.")
    numbers = [real_number(cell, f"{where}: column {i}") for i, cell in enumerate(cells[1:], 2)]
    height, width = builder.video.height, builder.video.width
    is_polygon = len(numbers) > 6
    if len(numbers) < 5 or (is_polygon and len(numbers) % 2 == 0):
        if len(numbers) == 4 or is_polygon:
            builder.notes[NO_TRACK] += 1
            return
        raise DataError(
            f"{where}: expected 'class x y width height id', or with a confidence before the id,"
            f" got {len(cells)} values."
        )
    key = whole_number(cells[-1], f"{where}: id")
    if is_polygon:
        scales = (width, height) * (len(numbers) // 2)
        points = [value * scale for value, scale in zip(numbers[:-1], scales, strict=True)]
        builder.add(key, class_id + 1, frame, where, mask=[points])
        return
    x, y, w, h = numbers[:4]
    box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
    builder.add(key, class_id + 1, frame, where, box=box)
