"""Label Studio's JSON export of video rectangles: keyframes in per cent of the frame."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial

from maskfreevis_ext.data.annotation_form import (
    MAX_FRAMES,
    AnnotationSet,
    LazyVideo,
    Video,
    VideoBuilder,
    check_frame_size,
)
from maskfreevis_ext.data.json_fields import MAX_NAME, Entry, read_json_value, short
from maskfreevis_ext.data.readers.cvat_xml import ROTATED, upright_box
from maskfreevis_ext.data.readers.files import unique_names, video_name
from maskfreevis_ext.data.readers.frames import frame_names, frame_size
from maskfreevis_ext.data.readers.options import ReadOptions, register_reader
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.rle import MAX_SIDE, is_finite_number

OTHER_RESULTS = "results that are no video rectangle left out"
CANCELLED = "skipped annotations of tasks left out"
MORE_ANNOTATIONS = "further annotations of a task left out (the first is read)"
NOT_ANNOTATED = "tasks without an annotation, read as videos without objects"


@register_reader("labelstudio")
def read_labelstudio(path: str, options: ReadOptions) -> AnnotationSet:
    """Read Label Studio's export in the form "JSON" (a list of tasks).

    Frames count from 1 in the file. Between two keyframes a box moves evenly; after a keyframe that
    is not ``enabled`` the object is absent until the next, and after the last one it stays.

    Args:
        path: The file.
        options: ``images`` or ``size``, as the file does not hold the size of frames.

    Returns:
        A video for each task, named after its video file.

    Raises:
        DataError: The file, a task or a keyframe cannot be used.
    """
    content = read_json_value(path)
    if isinstance(content, dict) and "annotations" in content:
        content = [content]  # one task, as the interface shows it
    if not isinstance(content, list) or not content:
        raise DataError(
            f"{path}: expected a list of tasks, got {short(content)}. Export from Label Studio as"
            " 'JSON', not 'JSON_MIN'."
        )
    tasks = [Entry(path, f"task {i}", task) for i, task in enumerate(content)]
    notes: Counter[str] = Counter()
    results = [_results(task, notes) for task in tasks]
    labels: dict[str, None] = {}
    for entries in results:
        labels.update(dict.fromkeys(label for _, _, label in entries))
    categories = dict(enumerate(sorted(labels), start=1))
    numbers = {name: number for number, name in categories.items()}
    names = unique_names(_name(task, i) for i, task in enumerate(tasks, start=1))

    def load(i: int) -> Video:
        return _read_video(i + 1, names[i], results[i], numbers, options, notes, len(tasks) == 1)

    lazy = [LazyVideo(name, partial(load, i)) for i, name in enumerate(names)]
    return AnnotationSet(path, categories, lazy, notes)


def _name(task: Entry, number: int) -> str:
    data = task.content.get("data")
    texts = [t for t in data.values() if isinstance(t, str)] if isinstance(data, dict) else []
    if isinstance(data, dict) and isinstance(data.get("video"), str):
        texts.insert(0, data["video"])
    base = os.path.basename(texts[0].split("?")[0].replace("\\", "/")) if texts else ""
    return video_name(os.path.splitext(base)[0], f"task_{number}")


def _results(task: Entry, notes: Counter[str]) -> list[tuple[Entry, Entry, str]]:
    """Results of the first annotation that counts: result, its value and its label."""
    annotations = task.content.get("annotations", task.content.get("completions"))
    if not isinstance(annotations, list):
        raise DataError(
            f"{task.json_file}: {task.place}.annotations must be a list, got {short(annotations)}."
            " Export from Label Studio as 'JSON', not 'JSON_MIN'."
        )
    kept = []
    for i, item in enumerate(annotations):
        annotation = Entry(task.json_file, f"{task.place}.annotations[{i}]", item)
        if annotation.content.get("was_cancelled"):
            notes[CANCELLED] += 1
        else:
            kept.append(annotation)
    notes[NOT_ANNOTATED] += not kept
    notes[MORE_ANNOTATIONS] += max(0, len(kept) - 1)
    found = []
    for annotation in kept[:1]:
        results = annotation.content.get("result")
        if not isinstance(results, list):
            raise annotation.fail("result", "a list")
        for i, item in enumerate(results):
            result = Entry(task.json_file, f"{annotation.place}.result[{i}]", item)
            if result.content.get("type") != "videorectangle":
                notes[OTHER_RESULTS] += 1
                continue
            value = Entry(task.json_file, f"{result.place}.value", result.content.get("value"))
            labels = value.content.get("labels") or ["object"]
            if not (isinstance(labels, list) and isinstance(labels[0], str)):
                raise value.fail("labels", "a list of names")
            if not 0 < len(labels[0]) <= MAX_NAME:
                raise value.fail("labels[0]", f"a name of 1 to {MAX_NAME} characters")
            found.append((result, value, labels[0]))
    return found


def _read_video(
    number: int,
    name: str,
    results: list[tuple[Entry, Entry, str]],
    categories: dict[str, int],
    options: ReadOptions,
    notes: Counter[str],
    is_only: bool,
) -> Video:
    length = 1
    for _, value, _ in results:
        if value.content.get("framesCount") is not None:
            count = value.content["framesCount"]
            if not (is_finite_number(count) and 1 <= count <= MAX_FRAMES):
                raise value.fail("framesCount", f"a number in 1..{MAX_FRAMES}")
            length = max(length, int(count))
    sequences = [_keyframes(value) for _, value, _ in results]
    length = max([length, *(frames[-1][0] for frames in sequences if frames)])
    names = frame_names(name, length, options, lambda t: f"{name}/{t:05d}.jpg", is_only)
    said = _said_size([result for result, _, _ in results])
    height, width = frame_size(name, names, options, said)
    builder = VideoBuilder(Video(number, name, height, width, names), notes, drops_outside=True)
    for i, ((result, value, label), frames) in enumerate(zip(results, sequences, strict=True)):
        key = result.content.get("id", i)
        if not isinstance(key, (str, int)):
            raise result.fail("id", "a text")
        for frame, sides, angle in _presences(frames, length):
            box = _pixels(sides, angle, height, width, notes)
            builder.add(key, categories[label], frame - 1, value.name("sequence"), box=box)
    return builder.build()


def _said_size(results: list[Entry]) -> tuple[int, int] | None:
    for result in results:
        sides = [result.content.get(key) for key in ("original_height", "original_width")]
        if all(side is not None for side in sides):
            where = result.name("original_width")
            whole = [
                int(s) if isinstance(s, float) and s == s // 1 <= MAX_SIDE else s for s in sides
            ]
            return check_frame_size(whole[0], whole[1], where)
    return None


Keyframe = tuple[int, list[float], float, bool]  # frame, x y width height, rotation, enabled


def _keyframes(value: Entry) -> list[Keyframe]:
    """Keyframes by ascending frame (from 1)."""
    sequence = value.content.get("sequence")
    if not isinstance(sequence, list):
        raise value.fail("sequence", "a list of keyframes")
    found = []
    for i, item in enumerate(sequence):
        entry = Entry(value.json_file, f"{value.place}.sequence[{i}]", item)
        frame = entry.integer("frame", 1, MAX_FRAMES)
        numbers = []
        for side in ("x", "y", "width", "height"):
            number = entry.content.get(side)
            if not is_finite_number(number):
                raise entry.fail(side, "a number, in per cent of the frame")
            numbers.append(float(number))
        angle = entry.content.get("rotation") or 0
        if not is_finite_number(angle):
            raise entry.fail("rotation", "a number of degrees")
        enabled = entry.content.get("enabled", True)
        if not isinstance(enabled, bool):
            raise entry.fail("enabled", "true or false")
        found.append((frame, numbers, float(angle), enabled))
    found.sort(key=lambda keyframe: keyframe[0])
    for before, after in itertools.pairwise(found):
        if before[0] == after[0]:
            raise value.fail("sequence", f"a list in which frame {after[0]} is there once")
    return found


def _presences(keyframes: list[Keyframe], length: int) -> Iterator[tuple[int, list[float], float]]:
    """Frame (from 1), x y width height and rotation wherever the object is present."""
    for i, (frame, sides, angle, enabled) in enumerate(keyframes):
        yield frame, sides, angle
        if not enabled:
            continue
        after = keyframes[i + 1] if i + 1 < len(keyframes) else None
        for t in range(frame + 1, after[0] if after else length + 1):
            if after is None:
                yield t, sides, angle
                continue
            share = (t - frame) / (after[0] - frame)
            between = [a + (b - a) * share for a, b in zip(sides, after[1], strict=True)]
            yield t, between, angle + (after[2] - angle) * share


def _pixels(
    sides: list[float], angle: float, height: int, width: int, notes: Counter[str]
) -> list[float]:
    """[x, y, width, height] in pixels; a turned box gives the upright one around it."""
    scales = (width / 100, height / 100, width / 100, height / 100)
    x, y, w, h = (side * scale for side, scale in zip(sides, scales, strict=True))
    if not angle % 360:
        return [x, y, w, h]
    notes[ROTATED] += 1
    turn = math.radians(angle)  # about the top left corner
    center_x = x + w / 2 * math.cos(turn) - h / 2 * math.sin(turn)
    center_y = y + w / 2 * math.sin(turn) + h / 2 * math.cos(turn)
    return upright_box(center_x, center_y, w, h, angle)
