"""Annotation files with something wrong, through every reader of YouTube-VIS and result files."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_util

from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.data.readers import read_annotations
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.evaluation.ground_truth import (
    read_detections,
    read_ground_truth,
    read_results,
)
from maskfreevis_ext.evaluation.per_object import score_objects
from tests.faults.attack.cases import attack
from tests.helpers.damage import change, check_sound, damage
from tests.helpers.videos import plain_content, write_json

Content = dict[str, Any]
_LONGEST = 1500  # characters of a message


def _results(content: Content) -> list[Content]:
    """A results file with the objects of an annotation file."""
    keys = ("video_id", "category_id", "segmentations")
    return [{**{k: a[k] for k in keys}, "score": 0.5} for a in content["annotations"]]


def refused(read: Callable[[], object], path: str) -> tuple[bool, str | None]:
    """Whether a reader refuses a file, and what is wrong with its message."""
    try:
        read()
    except DataError as error:
        text = str(error)
        if path not in text:
            return True, f"a message without the file: {text}"
        return True, f"a message of {len(text)} characters" if len(text) > _LONGEST else None
    return False, None


def _sound_dicts(videos: list[Content]) -> None:
    """What ``load_ytvis_json`` promises."""
    for video in videos:
        height, width = video["height"], video["width"]
        assert len(video["file_names"]) == video["length"] == len(video["annotations"])
        for frame in video["annotations"]:
            assert len({each["id"] for each in frame}) == len(frame)
            for each in frame:
                x, y, w, h = each["bbox"]
                assert all(map(math.isfinite, each["bbox"]))
                assert min(x, y) >= 0
                assert min(w, h) > 0
                assert x + w <= width + 1e-6
                assert y + h <= height + 1e-6
                if "segmentation" in each:
                    assert each["segmentation"]["size"] == [height, width]
                    assert 0 <= mask_util.area(each["segmentation"]) <= height * width


def _read_all(path: str) -> str | None:
    """What is wrong with how the readers of annotations take a file."""
    readers: dict[str, Callable[[], object]] = {
        "load_ytvis_json": lambda: _sound_dicts(load_ytvis_json(path, "root")),
        "read_annotations": lambda: check_sound(read_annotations("ytvis", path)),
        "read_ground_truth": lambda: read_ground_truth(read_json(path), path),
        "score_objects": lambda: score_objects(
            read_json(path), read_json(path), ground_truth_name=path, predicted_name=path
        ),
    }
    for name, read in readers.items():
        try:
            fault = refused(read, path)[1]
        except Exception as error:
            return f"{name}: {type(error).__name__}: {error}"
        if fault:
            return f"{name}: {fault}"
    return None


def _damaged(content: Any, index: int, rng: random.Random) -> bytes:
    """JSON with one to three values changed, or damaged bytes."""
    if index % 4 == 0:
        return damage(json.dumps(content).encode(), rng, is_json=False)
    for _ in range(rng.randint(1, 3)):
        change(content, rng)
    return json.dumps(content).encode("utf-8", "surrogatepass")


@attack(
    "mutated YouTube-VIS files through four readers",
    "one DataError with the file's name, or sound annotations",
    count=10_000,
    quick=60,
    limit=30,
)
def annotations(index: int, rng: random.Random, folder: Path) -> str | None:
    """One to three values changed, or bytes damaged."""
    content = plain_content((2, 1), masks=rng.random() < 0.7)
    path = folder / "instances.json"
    path.write_bytes(_damaged(content, index, rng))
    return _read_all(str(path))


@attack(
    "mutated results files",
    "one DataError with the file's name, or tracks that are scored",
    count=3000,
    quick=40,
    limit=30,
)
def results(index: int, rng: random.Random, folder: Path) -> str | None:
    """A submission with something wrong."""
    content = plain_content((2, 1), masks=True)
    truth = read_ground_truth(content)
    found: Any = _results(content)
    path = str(folder / "results.json")
    Path(path).write_bytes(_damaged(found, index, rng))
    return refused(lambda: read_detections(read_results(path), truth, path), path)[1]


def _wrong(where: str, value: Any) -> Callable[[Content], None]:
    """A change of one place; ``where`` is a path such as "annotations/0/bboxes/0"."""

    def apply(content: Content) -> None:
        *path, last = [int(key) if key.isdecimal() else key for key in where.split("/")]
        node: Any = content
        for key in path:
            node = node[key]
        if value is _GONE:
            del node[last]
        else:
            node[last] = copy.deepcopy(value)

    return apply


_GONE = object()
_NAN, _INF = float("nan"), float("inf")
_TRACK, _VIDEO, _CLASS = "annotations/1", "videos/0", "categories/0"
_NO_ID = (None, "1", -1, 1.0, True, _NAN, [], 2**70, _GONE)
_NO_SIDE = (0, -1, "20", 20.0, None, True, 10**6, _GONE)
_NO_BOX = (
    *([1, 2, 3], [1, 2, 3, 4, 5], [_NAN, 2, 3, 4], [1, _INF, 3, 4], [1, 2, -3, 4], [1, 2, 3, -4]),
    *(
        [1, 2, "3", 4],
        [1, 2, None, 4],
        [1, 2, True, 4],
        {},
        "x",
        7,
        [900, 900, 5, 5],
        [[1, 2, 3, 4]],
    ),
)
_NO_MASK = (
    *({"size": [20, 30]}, {"counts": "0"}, {"size": [30, 20], "counts": "PQ7"}, 7, "x", True),
    *({"size": [20, 30], "counts": counts} for counts in ("", "o", "~", "é", 5, [1], [-1, 601])),
    *({"size": [20, 30], "counts": counts} for counts in ([600.0], ["600"], [2**80], "0" * 5000)),
    *([[_NAN] * 6], [["1"] * 6], [[1e9] * 6], [5], [[[0, 0], [1, 1]]]),
)
_NO_PATH = (
    "../a.png",
    "/etc/passwd",
    "a/../../b.png",
    "C:\\a.png",
    "a\0b.png",
    "",
    None,
    5,
    "\ud800",
)
#: Changes after which a file is certainly wrong: each must be refused by the reader for training.
WRONG: tuple[tuple[str, Any], ...] = (
    *((f"{_TRACK}/id", value) for value in (*_NO_ID, 10)),
    *((f"{_TRACK}/video_id", value) for value in (*_NO_ID, 99)),
    *((f"{_TRACK}/category_id", value) for value in (*_NO_ID, 99)),
    *((f"{_TRACK}/iscrowd", value) for value in (2, -1, "1", 0.5, _NAN, [])),
    *((f"{_TRACK}/bboxes", value) for value in ([None], {}, "x", 7, [None] * 3)),
    *((f"{_TRACK}/bboxes/1", value) for value in _NO_BOX),
    *((f"{_TRACK}/segmentations", value) for value in ([None], {}, "x", 7)),
    *((f"{_TRACK}/segmentations/1", value) for value in _NO_MASK),
    *((f"{_TRACK}/areas", value) for value in ([1], "x", [_NAN, 1], [-1, 1], ["1", 1])),
    *((f"{_TRACK}/confidence", value) for value in (2, -0.1, _NAN, "x", True)),
    (_TRACK, 5),
    (_TRACK, None),
    *((f"{_VIDEO}/id", value) for value in (*_NO_ID, 2)),
    *((f"{_VIDEO}/height", value) for value in _NO_SIDE),
    *((f"{_VIDEO}/width", value) for value in _NO_SIDE),
    *((f"{_VIDEO}/length", value) for value in (0, 3, -1, "2", 2.0, True)),
    *((f"{_VIDEO}/file_names", value) for value in ([], None, "x", {}, _GONE, ["a.png"])),
    *((f"{_VIDEO}/file_names/1", value) for value in _NO_PATH),
    (_VIDEO, []),
    *((f"{_CLASS}/id", value) for value in (*_NO_ID, 7)),
    *((f"{_CLASS}/name", value) for value in (None, "", 5, [], "dog")),
    *((field, value) for field in ("videos", "categories") for value in ([], {}, None, 5, _GONE)),
    *(("annotations", value) for value in ({}, 5, "x", [[]])),
)


@attack(
    "files with one value that is certainly wrong",
    "refused, naming file and field",
    count=len(WRONG),
    quick=len(WRONG),
    limit=30,
)
def wrong_values(index: int, rng: random.Random, folder: Path) -> str | None:
    """The list of wrong values, each alone in a sound file."""
    where, value = WRONG[index % len(WRONG)]
    content = plain_content((2, 1), masks=True)
    _wrong(where, value)(content)
    path = write_json(folder, content)
    is_refused, fault = refused(lambda: load_ytvis_json(path, "root"), path)
    if not is_refused:
        return f"{where} = {value!r} is accepted"
    return fault
