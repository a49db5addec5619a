"""CVAT 1.1: tracks with interpolation ("CVAT for video"), or single images."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from maskfreevis_ext.data.annotation_form import (
    MAX_FRAMES,
    AnnotationSet,
    LazyVideo,
    Video,
    VideoBuilder,
    check_frame_size,
)
from maskfreevis_ext.data.json_fields import path_fault
from maskfreevis_ext.data.readers.cvat_xml import (
    CvatFile,
    CvatImage,
    CvatShape,
    CvatTrack,
    parse_cvat,
)
from maskfreevis_ext.data.readers.files import (
    files_of,
    unique_names,
    video_name,
    whole_number,
)
from maskfreevis_ext.data.readers.frames import frame_names, frame_size, listed_frames
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.rle import encode_masks

HELD = "polygons held until the next keyframe, which has another number of points"


@register_reader("cvat")
def read_cvat(path: str, options: ReadOptions) -> AnnotationSet:
    """Read an XML file of CVAT, or a folder of them.

    A shape stands until the track's next one: boxes and polygons of as many points move evenly
    between the two, masks and other polygons are held; ``outside`` ends a presence. Rotated boxes
    become the upright box around them.

    Args:
        path: File or folder.
        options: ``images`` gives the names of frames, which the video mode does not hold.

    Returns:
        A video for each task, named after it; for each image in the image mode.

    Raises:
        DataError: A file, a track or a shape cannot be used.
    """
    notes: Counter[str] = Counter()
    files = [parse_cvat(file, notes) for file in files_of(path, ".xml", "XML files of CVAT")]
    categories = _categories(files)
    parts: list[tuple[str, Any, Any]] = []  # name, file, task or image
    for file in files:
        if file.images and file.tracks:
            raise DataError(f"{file.path}: has both <image> and <track> elements.")
        parts.extend((_image_name(image), file, image) for image in file.images)
        if not file.images:
            parts.extend((_task_name(file, task), file, task) for task in _tasks(file))
    names = unique_names(name for name, _, _ in parts)
    numbers = {name: number for number, name in categories.items()}
    is_only = len(parts) == 1

    def load(i: int) -> Video:
        _, file, part = parts[i]
        if isinstance(part, CvatImage):
            return _read_image(i + 1, names[i], part, numbers, notes)
        return _read_task(i + 1, names[i], file, part, numbers, options, notes, is_only)

    lazy = [LazyVideo(name, partial(load, i)) for i, name in enumerate(names)]
    is_images = bool(parts) and all(isinstance(part, CvatImage) for _, _, part in parts)
    return AnnotationSet(path, categories, lazy, notes, is_images=is_images)


def _categories(files: list[CvatFile]) -> dict[int, str]:
    names: dict[str, None] = {}
    for file in files:
        names.update(dict.fromkeys(file.labels))
        names.update(dict.fromkeys(track.label for track in file.tracks))
        names.update(dict.fromkeys(shape.label for image in file.images for shape in image.shapes))
    return dict(enumerate(names, start=1))


def _tasks(file: CvatFile) -> list[dict[str, str]]:
    """Tasks of the video mode; a file without ``meta`` has one of which nothing is known."""
    tasks = file.tasks or [{}]
    known = {task.get("id", "") for task in tasks}
    for track in file.tracks:
        if len(tasks) > 1 and track.task not in known:
            raise DataError(
                f"{file.path}: track {track.number}: task_id must be the id of a <task>, got"
                f" {track.task!r:.60}."
            )
    return tasks


def _task_name(file: CvatFile, task: dict[str, str]) -> str:
    stem = os.path.splitext(os.path.basename(file.path))[0]
    title = os.path.splitext(task.get("name", ""))
    is_video_file = title[1].lower() in (".mp4", ".avi", ".mov", ".mkv", ".webm")
    return video_name(title[0] if is_video_file else task.get("name", ""), video_name(stem))


def _image_name(image: CvatImage) -> str:
    fault = path_fault(image.attributes.get("name"))
    if fault is not None:
        raise DataError(f"{image.where}: name must be {fault}.")
    return video_name(os.path.splitext(image.attributes["name"])[0])


def _read_image(
    number: int, name: str, image: CvatImage, categories: dict[str, int], notes: Counter[str]
) -> Video:
    sides = [
        whole_number(image.attributes.get(side, ""), f"{image.where}: {side}")
        for side in ("height", "width")
    ]
    height, width = check_frame_size(sides[0], sides[1], image.where)
    video = Video(number, name, height, width, [image.attributes["name"]])
    builder = VideoBuilder(video, notes)
    for key, shape in enumerate(image.shapes, start=1):
        _add(builder, key, categories[shape.label], 0, shape, shape.numbers)
    return builder.build()


def _read_task(
    number: int,
    name: str,
    file: CvatFile,
    task: dict[str, str],
    categories: dict[str, int],
    options: ReadOptions,
    notes: Counter[str],
    is_only: bool,
) -> Video:
    tracks = [t for t in file.tracks if len(file.tasks) < 2 or t.task == task.get("id", "")]
    start, step = _numbering(file, task)
    length = _length(file, task, tracks, start, step)
    names = _frame_names(name, length, start, step, options, is_only)
    said = None
    if task.get("original_size/width"):
        sides = [
            whole_number(task.get(f"original_size/{side}", ""), f"{file.path}: original_size")
            for side in ("height", "width")
        ]
        said = check_frame_size(sides[0], sides[1], f"{file.path}: original_size")
    height, width = frame_size(name, names, options, said)
    builder = VideoBuilder(Video(number, name, height, width, names), notes)
    taken: set[int] = set()
    for track in tracks:
        if track.number in taken:
            raise DataError(f"{file.path}: two tracks have the id {track.number}.")
        taken.add(track.number)
        for frame, shape, numbers in _presences(track, len(names), start, step, notes):
            _add(builder, track.number, categories[track.label], frame, shape, numbers)
    return builder.build()


def _numbering(file: CvatFile, task: dict[str, str]) -> tuple[int, int]:
    """First frame of the task in its video, and the step between its frames."""
    start = whole_number(task.get("start_frame") or "0", f"{file.path}: start_frame")
    match = re.search(r"step\s*=\s*(\d{1,9})", task.get("frame_filter", ""))
    return start, max(1, int(match[1])) if match else 1


def _length(
    file: CvatFile, task: dict[str, str], tracks: list[CvatTrack], start: int, step: int
) -> int:
    where = f"{file.path}: <meta>"
    if task.get("size"):
        return whole_number(task["size"], f"{where} size", 1, MAX_FRAMES)
    if task.get("stop_frame"):
        stop = whole_number(task["stop_frame"], f"{where} stop_frame", start)
        return (stop - start) // step + 1
    shapes = [s for track in tracks for s in track.shapes if not s.is_outside]
    return max(((shape.frame - start) // step + 1 for shape in shapes), default=1)


def _frame_names(
    name: str, length: int, start: int, step: int, options: ReadOptions, is_only: bool
) -> list[str]:
    def default(t: int) -> str:
        return f"{name}/frame_{start + t * step:06d}.png"

    last = start + (length - 1) * step
    if options.images is not None and last + 1 != length:
        listed = listed_frames(options.images, name, is_only)
        if len(listed) > last:  # the frames of the whole video
            return listed[start : last + 1 : step]
    return frame_names(name, length, options, default, is_only)[:length]


def _presences(
    track: CvatTrack, length: int, start: int, step: int, notes: Counter[str]
) -> Iterator[tuple[int, CvatShape, list[float]]]:
    """Frame from 0, shape and its numbers wherever the object is present."""
    shapes = sorted(track.shapes, key=lambda shape: shape.frame)
    indices = []
    for i, shape in enumerate(shapes):
        index, rest = divmod(shape.frame - start, step)
        if not shape.is_outside and (rest or not 0 <= index < length):
            last = start + (length - 1) * step
            raise DataError(
                f"{shape.where}: frame must be in {start}..{last} in steps of {step} like the"
                f" frames of the task, got {shape.frame}."
            )
        if i and shape.frame == shapes[i - 1].frame:
            raise DataError(f"{shape.where}: track {track.number} has frame {shape.frame} twice.")
        indices.append(index)
    for i, shape in enumerate(shapes):
        if shape.is_outside:
            continue
        yield indices[i], shape, shape.numbers
        after = shapes[i + 1] if i + 1 < len(shapes) else None
        end = min(indices[i + 1], length) if after else length
        moves = after is not None and _moves(shape, after)
        if after is not None and not moves and end > indices[i] + 1:
            notes[HELD] += shape.kind == "polygon"
        for t in range(indices[i] + 1, end):
            numbers = shape.numbers
            if moves and after is not None:
                share = (t - indices[i]) / (indices[i + 1] - indices[i])
                numbers = [a + (b - a) * share for a, b in zip(numbers, after.numbers, strict=True)]
            yield t, shape, numbers


def _moves(shape: CvatShape, after: CvatShape) -> bool:
    is_same = shape.kind == after.kind and len(shape.numbers) == len(after.numbers)
    return is_same and shape.kind != "mask"


def _add(
    builder: VideoBuilder,
    key: int,
    category_id: int,
    frame: int,
    shape: CvatShape,
    numbers: list[float],
) -> None:
    box: Any = None
    mask: Any = None
    if shape.kind == "box":
        box = numbers
    elif shape.kind == "polygon":
        mask = [numbers]
    else:
        mask = mask_of_runs(shape, builder.video.height, builder.video.width)
    builder.add(
        key, category_id, frame, shape.where, box=box, mask=mask, occluded=shape.is_occluded
    )


def mask_of_runs(shape: CvatShape, height: int, width: int) -> dict[str, Any]:
    """The COCO RLE of a mask in CVAT's runs.

    Args:
        shape: Has runs, row by row inside its rectangle, background first.
        height: Of the frame.
        width: Of the frame.

    Returns:
        A compressed RLE.

    Raises:
        DataError: The rectangle leaves the frame, or the runs do not fill it.
    """
    left, top, w, h = (int(number) for number in shape.numbers)
    if not (w and h and left + w <= width and top + h <= height):
        raise DataError(
            f"{shape.where}: the mask's rectangle (left {left}, top {top}, width {w}, height {h})"
            f" must lie in the frame of {width} x {height} pixels."
        )
    if not re.fullmatch(r"\s*\d{1,9}(\s*,\s*\d{1,9})*\s*,?\s*", shape.runs, re.ASCII):
        raise DataError(f"{shape.where}: rle must be numbers with commas between them.")
    runs = np.array([int(run) for run in shape.runs.split(",") if run.strip()], dtype=np.int64)
    if runs.sum() != w * h:
        raise DataError(
            f"{shape.where}: the runs of rle must sum to width x height = {w * h}, got"
            f" {runs.sum()}."
        )
    mask = np.zeros((1, height, width), dtype=bool)
    is_object = np.arange(len(runs)) % 2 == 1
    mask[0, top : top + h, left : left + w] = np.repeat(is_object, runs).reshape(h, w)
    return encode_masks(mask)[0]
