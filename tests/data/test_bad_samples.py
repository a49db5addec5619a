"""Frames that turn bad after the checks of the start: raised, or replaced and counted."""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from detectron2.utils.events import EventStorage
from PIL import Image

from maskfreevis_ext.data import build_test_loader, build_train_loader
from maskfreevis_ext.data.bad_samples import ALWAYS_ALLOWED, BadSampleCount
from maskfreevis_ext.errors import DataError
from tests.helpers.videos import data_cfg, plain_content, unique_name, write_frames, write_json

_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\nshowpage\n%%EOF\n"


def png_bomb(side=60_000):
    """A PNG of a few bytes whose header says side x side pixels."""

    def chunk(name, data):
        length, check = (struct.pack(">I", n) for n in (len(data), zlib.crc32(name + data)))
        return length + name + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 100)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def spoil(path, kind):
    """Replace a picture by something that is none, or by none of its size."""
    with open(path, "rb") as file:
        good = file.read()
    os.remove(path)
    if kind == "missing":
        return
    if kind == "directory":
        os.mkdir(path)
    elif kind == "other size":
        Image.fromarray(np.zeros((7, 9, 3), np.uint8)).save(path)
    else:
        content = {
            "empty": b"",
            "truncated": good[: len(good) // 2],
            "html": b"<!DOCTYPE html><html><body>404</body></html>",
            "bomb": png_bomb(),
            "EPS": _EPS,
        }
        with open(path, "wb") as file:
            file.write(content[kind])


KINDS = ("empty", "truncated", "html", "other size", "directory", "missing", "bomb", "EPS")


@pytest.fixture
def entry(tmp_path):
    content, name = plain_content((1, 1, 1, 1, 1, 1)), unique_name()
    return [name, write_json(tmp_path, content), write_frames(tmp_path, content)]


def _frame(entry, video=2):
    return os.path.join(entry[2], f"v{video}", "00000.png")


def _loader(entry, *overrides):
    cfg = data_cfg(
        *("INPUT.DATASETS", [entry], "DATASETS.TRAIN", (entry[0],)),
        *("DATASETS.TEST", (entry[0],), "INPUT.SAMPLING_FRAME_NUM", 1, *overrides),
    )
    return build_train_loader(cfg), cfg


def _ids(loader, count, start=0):
    loader.start_at(start, loader.seed)
    batches = list(itertools.islice(iter(loader), count))
    return [[sample["video_id"] for sample in batch] for batch in batches]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 1])
def test_bad_frame_ends_the_run_with_its_path_video_and_index(entry, kind, workers):
    loader, _ = _loader(entry, "DATALOADER.NUM_WORKERS", workers)
    path = _frame(entry)
    spoil(path, kind)  # after the checks of the start
    with pytest.raises(DataError) as error:
        _ids(loader, 12)
    assert str(error.value).startswith(f"{path} (video 2, frame 0): ")
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_frame_is_replaced_and_counted(entry, kind, caplog):
    loader, _ = _loader(entry, "DATALOADER.ON_BAD_SAMPLE", "skip")
    before = _ids(loader, 9)
    path = _frame(entry)
    spoil(path, kind)
    with EventStorage(0) as storage:
        after = _ids(loader, 9)
        assert storage.latest()["data/bad_samples"][0] == loader.bad_samples.bad
    changed = [
        (old, new) for old, new in zip(np.ravel(before), np.ravel(after), strict=True) if old != new
    ]
    assert {old for old, _ in changed} == {2}
    assert 2 not in {new for _, new in changed}
    assert np.ravel(before).tolist().count(2) == len(changed)
    assert loader.bad_samples.bad >= len(changed) == 3
    assert f"{path} (video 2, frame 0)" in caplog.text


def test_replacements_are_equal_for_any_number_of_workers_and_on_resume(entry):
    skip = ("DATALOADER.ON_BAD_SAMPLE", "skip", "DATALOADER.NUM_WORKERS")
    runs = []
    for workers in (0, 1, 2, 3):
        loader, _ = _loader(entry, *skip, workers)
        if workers == 0:
            shutil.copy(_frame(entry), _frame(entry) + ".good")
        spoil(_frame(entry), "truncated")
        runs.append(_ids(loader, 8))
        resumed, late = _resumed(entry, skip, workers)
        assert late == runs[-1][5:], resumed
        shutil.copy(_frame(entry) + ".good", _frame(entry))
    assert runs[0] == runs[1] == runs[2] == runs[3]


def _resumed(entry, skip, workers):
    loader, _ = _loader(entry, *skip, workers, "INPUT.CHECK_FRAMES", False)
    return workers, _ids(loader, 3, start=5)


def test_data_set_without_a_good_sample_ends_the_run(entry):
    loader, _ = _loader(entry, "DATALOADER.ON_BAD_SAMPLE", "skip")
    for video in range(1, 7):
        spoil(_frame(entry, video), "html")
    with pytest.raises(DataError, match=r"expected an image.*none of 5 samples in its place"):
        _ids(loader, 1)


def test_evaluation_never_skips(entry):
    _, cfg = _loader(entry, "DATALOADER.ON_BAD_SAMPLE", "skip")
    loader = build_test_loader(cfg, entry[0])
    spoil(_frame(entry), "truncated")
    with pytest.raises(DataError, match=r"video 2, frame 0"):
        list(loader)


def test_more_than_a_hundredth_ends_the_run_but_not_the_first_ten():
    count = BadSampleCount()
    for _ in range(ALWAYS_ALLOWED):
        count.add([{"bad_samples": ["a.png: broken"]}])
    with pytest.raises(DataError, match=r"11 of 11 samples.*1%.*b\.png: broken"):
        count.add([{"bad_samples": ["b.png: broken"]}])


def test_less_than_a_hundredth_goes_on():
    count = BadSampleCount()
    for _ in range(30):
        count.add([{} for _ in range(99)])
        batch = [{"bad_samples": ["a.png: broken"]}]
        count.add(batch)
        assert batch == [{}]
    assert (count.bad, count.seen) == (30, 3000)
