"""Annotation files of all formats with something wrong, and what a sound set of annotations is."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.data.annotation_form import AnnotationSet, Track, Video
from maskfreevis_ext.data.json_fields import path_fault
from maskfreevis_ext.data.readers import ReadOptions
from tests.helpers.annotations import (
    as_bdd100k,
    as_burst,
    as_kitti_mots,
    as_labelme,
    as_labelstudio,
    as_mot,
    as_yolo,
    as_youtube_vos,
    make_set,
    mask_of,
    tight,
    write_files,
    written,
)

#: Format that is only read -> files of a set.
FOREIGN = {
    "mot": as_mot,
    "kitti-mots": as_kitti_mots,
    "youtube-vos": as_youtube_vos,
    "bdd100k": as_bdd100k,
    "burst": as_burst,
    "yolo-tracks": as_yolo,
    "labelme": as_labelme,
    "labelstudio": as_labelstudio,
}
#: Format -> what of its files is read, where that is not the folder.
FILES = {"burst": "burst.json", "labelstudio": "tasks.json", "yolo-tracks": "labels"}
TEXT = (
    *(b"NaN", b"-1", b"null", b"1e999", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"[]", b"{}", b'"'),
    *(b"9" * 25, b",", b"\n", b"<", b"&", b"../", b"0", b"1.5", b" ", b"true", b"-0.25", b"\xe7"),
)
JUNK: tuple[Any, ...] = (
    *(None, -1, 0, 1, 1.5, 10**30, float("nan"), float("inf"), True, False, "", "x", "../x"),
    *("\ud800", "/etc/x", "a\0b", [], {}, [None], [[]], [1, 2, 3, 4], [-1, -1, 2, 2], {"a": 1}),
    *([[1, 2]], [[0, 0, 9e9, 0, 0, 9e9]], {"size": [4, 4], "counts": "0"}, "1" * 3000, -1e308),
)


def sample_set(with_masks: bool = True) -> AnnotationSet:
    """Two videos of 3 frames with two tracks each."""
    rng = np.random.RandomState(5)
    found = []
    for number in (1, 2):
        names = [f"v{number}/{t:05d}.jpg" for t in range(3)]
        video = Video(number, f"v{number}", 8, 10, names)
        for track_id in (1, 2):
            track = Track(track_id, track_id)
            for t in range(3):
                pixels = np.zeros((8, 10), dtype=bool)
                x, y = rng.randint(0, 3, 2)
                pixels[y : y + 4, 4 * (track_id - 1) + x // 2 : 4 * track_id] = True
                track.masks[t] = mask_of(pixels)
                track.boxes[t] = tight(track.masks[t])
            if not with_masks:
                track.masks = {}
            video.tracks.append(track)
        found.append(video)
    return make_set(found)


def write_sample(name: str, folder: Path) -> tuple[str, list[Path]]:
    """Write a sound set in a format; gives the path to read, and its files."""
    if name in FOREIGN:
        write_files(folder, FOREIGN[name](sample_set()))
        path = str(folder / FILES.get(name, ""))
    else:
        path = written(sample_set(with_masks=name != "csv"), name, folder)
    return path, sorted(file for file in folder.rglob("*") if file.is_file())


def sample_options(name: str) -> ReadOptions:
    """What the files of ``write_sample`` leave open."""
    return ReadOptions(size=(8, 10) if name in ("yolo-tracks", "labelstudio") else None)


def damage(data: bytes, rng: random.Random, is_json: bool) -> bytes:
    """The content of a file with one or two things wrong."""
    kind = rng.randrange(10 if is_json else 6)
    place = rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + rng.choice(TEXT) + data[place:]
    if kind == 2:
        return data[:place] + rng.choice(TEXT) + data[place + rng.randrange(1, 6) :]
    if kind == 3:
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if kind == 4:
        return _recoded(data, rng)
    if kind == 5:
        lines = data.splitlines(keepends=True)
        line = rng.randrange(len(lines)) if lines else 0
        return b"".join(lines[:line] + 2 * lines[line : line + 1] + lines[line + 1 :])
    content = json.loads(data)
    for _ in range(rng.randrange(1, 3)):
        change(content, rng)
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _recoded(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("latin-1")
    return rng.choice(
        (
            b"\xef\xbb\xbf" + data,
            text.encode("utf-16"),
            text.replace("car", "caf\xe9").encode("latin-1"),
            data.replace(b"\n", b"\r\n"),
            b"",
        )
    )


def change(content: Any, rng: random.Random) -> None:
    """Replace, remove or repeat a value somewhere in a JSON content."""
    while True:
        if isinstance(content, dict) and content:
            key: Any = rng.choice(sorted(content))
        elif isinstance(content, list) and content:
            key = rng.randrange(len(content))
        else:
            return
        if isinstance(content[key], (dict, list)) and content[key] and rng.random() < 0.8:
            content = content[key]
            continue
        action = rng.randrange(5)
        if action == 0:
            del content[key]
        elif action == 1 and isinstance(content, list):
            content.append(content[key])
        else:
            content[key] = copy.deepcopy(rng.choice(JUNK))  # later changes may go into it
        return


def check_sound(dataset: AnnotationSet) -> None:
    """What the internal form promises."""
    ids = set()
    for video in dataset:
        assert video.id not in ids
        ids.add(video.id)
        assert video.file_names
        assert not any(map(path_fault, video.file_names))
        assert not path_fault(video.name)
        assert len({track.id for track in video.tracks}) == len(video.tracks)
        for track in video.tracks:
            assert type(track.id) is int
            assert track.category_id in dataset.categories
            assert track.boxes
            assert set(track.masks) <= set(track.boxes) <= set(range(len(video.file_names)))
            for x, y, w, h in track.boxes.values():
                assert min(x, y) >= 0
                assert min(w, h) > 0
                assert x + w <= video.width + 1e-6
                assert y + h <= video.height + 1e-6
            for mask in track.masks.values():
                assert tuple(mask["size"]) == (video.height, video.width)
                assert mask_util.area(mask) > 0
