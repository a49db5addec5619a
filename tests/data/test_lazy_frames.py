"""Frames of long test videos: the same as in memory, but read when they are needed."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from maskfreevis_ext.data import YTVISDatasetMapper, build_test_loader
from maskfreevis_ext.data.lazy_frames import LazyFrames
from maskfreevis_ext.errors import DataError
from tests.helpers.videos import data_cfg, plain_content, unique_name, write_frames, write_json


@pytest.fixture
def video(tmp_path) -> dict:
    content = plain_content((9,))
    found = dict(content["videos"][0])
    root = write_frames(tmp_path, content)
    return found | {
        "video_id": found["id"],
        "file_names": [f"{root}/{name}" for name in found["file_names"]],
        "annotations": [[] for _ in range(9)],
    }


def _sample(video: dict, *overrides: object) -> dict:
    cfg = data_cfg("INPUT.MIN_SIZE_TEST", 13, "INPUT.FORMAT", "BGR", *overrides)
    return YTVISDatasetMapper(cfg, is_train=False)(video)


def test_long_videos_are_read_lazily_and_equal_those_in_memory(video) -> None:
    whole = _sample(video, "TEST.WINDOW.ABOVE", 9)["image"]
    lazy = _sample(video, "TEST.WINDOW.ABOVE", 8)["image"]
    assert isinstance(whole, list)
    assert isinstance(lazy, LazyFrames)
    assert len(lazy) == 9
    for got, expected in zip(lazy, whole, strict=True):
        assert torch.equal(got, expected)
    assert torch.equal(lazy[-1], whole[8])
    assert [torch.equal(a, b) for a, b in zip(lazy[2:5], whole[2:5], strict=True)] == [True] * 3
    with pytest.raises(IndexError):
        lazy[9]


def test_mode_off_reads_the_whole_video(video) -> None:
    options = "TEST.WINDOW.MODE", "off", "TEST.WINDOW.ABOVE", 0
    assert isinstance(_sample(video, *options)["image"], list)


def test_a_damaged_frame_is_reported_where_it_is_and_the_thread_ends(video) -> None:
    os.remove(video["file_names"][4])
    before = threading.active_count()
    frames = iter(_sample(video, "TEST.WINDOW.ABOVE", 0)["image"])
    for _ in range(4):
        next(frames)
    with pytest.raises(DataError, match=r"frame 4.*no such image file"):
        next(frames)
    assert threading.active_count() == before


def test_an_abandoned_iteration_leaves_no_thread(video) -> None:
    before = threading.active_count()
    frames = iter(_sample(video, "TEST.WINDOW.ABOVE", 0)["image"])
    next(frames)
    frames.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_test_loader_passes_short_and_long_videos(tmp_path, workers) -> None:
    name, content = unique_name(), plain_content((3, 6))
    entry = [name, write_json(tmp_path, content), write_frames(tmp_path, content)]
    cfg = data_cfg("INPUT.DATASETS", [entry], "DATALOADER.NUM_WORKERS", workers)
    cfg.merge_from_list(["TEST.WINDOW.ABOVE", 3])
    short, long = (batch[0]["image"] for batch in build_test_loader(cfg, name))
    assert (type(short), len(short)) == (list, 3)
    assert (type(long), len(long)) == (LazyFrames, 6)
    assert torch.equal(next(iter(long)), long[0])
