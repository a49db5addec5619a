"""Damaged files of every format: one ``DataError`` that says where, or annotations that are sound.

2,080 damaged files in all (130 of each of the 16 formats).
"""

from __future__ import annotations

import functools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util

from maskfreevis_ext.data.annotation_form import Track, Video
from maskfreevis_ext.data.json_fields import path_fault
from maskfreevis_ext.data.readers import READERS, ReadOptions, read_annotations
from maskfreevis_ext.errors import DataError
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

_CASES = 130
_FOREIGN = {
    "mot": as_mot,
    "kitti-mots": as_kitti_mots,
    "youtube-vos": as_youtube_vos,
    "bdd100k": as_bdd100k,
    "burst": as_burst,
    "yolo-tracks": as_yolo,
    "labelme": as_labelme,
    "labelstudio": as_labelstudio,
}
_FILES = {"burst": "burst.json", "labelstudio": "tasks.json", "yolo-tracks": "labels"}
_TEXT = (
    *(b"NaN", b"-1", b"null", b"1e999", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"[]", b"{}", b'"'),
    *(b"9" * 25, b",", b"\n", b"<", b"&", b"../", b"0", b"1.5", b" ", b"true", b"-0.25", b"\xe7"),
)
_JUNK: tuple[Any, ...] = (
    *(None, -1, 0, 1, 1.5, 10**30, float("nan"), float("inf"), True, False, "", "x", "../x"),
    *("\ud800", "/etc/x", "a\0b", [], {}, [None], [[]], [1, 2, 3, 4], [-1, -1, 2, 2], {"a": 1}),
    *([[1, 2]], [[0, 0, 9e9, 0, 0, 9e9]], {"size": [4, 4], "counts": "0"}, "1" * 3000, -1e308),
)


def _sample_set(with_masks: bool = True):
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


@functools.lru_cache
def _sample(name: str) -> tuple[tempfile.TemporaryDirectory, str, list[Path]]:
    """Folder of a sound set in a format, the path to read, and its files."""
    holder = tempfile.TemporaryDirectory()
    folder = Path(holder.name)
    if name in _FOREIGN:
        write_files(folder, _FOREIGN[name](_sample_set()))
        path = str(folder / _FILES.get(name, ""))
    else:
        path = written(_sample_set(with_masks=name != "csv"), name, folder)
    return holder, path, sorted(file for file in folder.rglob("*") if file.is_file())


def _options(name: str) -> ReadOptions:
    return ReadOptions(size=(8, 10) if name in ("yolo-tracks", "labelstudio") else None)


def _damage(data: bytes, rng: random.Random, is_json: bool) -> bytes:
    """The content of a file with one or two things wrong."""
    kind = rng.randrange(10 if is_json else 6)
    place = rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + rng.choice(_TEXT) + data[place:]
    if kind == 2:
        return data[:place] + rng.choice(_TEXT) + data[place + rng.randrange(1, 6) :]
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
        _change(content, rng)
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


def _change(content: Any, rng: random.Random) -> None:
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
            content[key] = rng.choice(_JUNK)
        return


def _check_sound(dataset) -> None:
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


def _read_sound(name: str, path: str) -> str | None:
    """The message of the error; None where sound annotations are read."""
    try:
        _check_sound(read_annotations(name, path, _options(name)))
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", sorted(READERS))
def test_undamaged_sample_is_read(name):
    _, path, _ = _sample(name)
    dataset = read_annotations(name, path, _options(name))
    _check_sound(dataset)
    assert sum(len(video.tracks) for video in dataset) >= 4


@pytest.mark.parametrize("name", sorted(READERS))
@settings(
    max_examples=_CASES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**40))
def test_damaged_file_gives_one_error_or_sound_annotations(name, seed):
    holder, path, files = _sample(name)
    rng = random.Random(seed)
    file = rng.choice(files)
    original = file.read_bytes()
    try:
        file.write_bytes(_damage(original, rng, file.suffix == ".json"))
        message = _read_sound(name, path)
    finally:
        file.write_bytes(original)
    assert message is None or holder.name in message or "video '" in message, message
    assert len(message or "") < 1500


@pytest.mark.parametrize("name", sorted(READERS))
def test_missing_and_empty_inputs_are_named(name, tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(DataError, match=tmp_path.name):
            list(read_annotations(name, path))
