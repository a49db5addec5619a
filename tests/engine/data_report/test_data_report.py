"""The report on a data set: numbers of cells, drawn matches, lines and the page."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from maskfreevis_ext.data.frame_instances import FrameInstances
from maskfreevis_ext.data.track_statistics import DataStatistics, Suspicion, describe_videos
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.engine.data_report import (
    Signals,
    clip_rows,
    draw_matches,
    look_at,
    report_lines,
    write_page,
)
from maskfreevis_ext.losses.affinities import AffinitySettings
from tests.helpers.videos import plain_content, write_frames, write_json

SETTINGS = AffinitySettings(temporal_pairs="chain")


def _sample(frames: list[np.ndarray], boxes: list[list[float]]) -> dict:
    """A clip with one object; each box is x0, y0, x1, y1, or zeros where it is absent."""
    tracks = {
        "labels": torch.tensor([0]),
        "ids": torch.tensor([[5 if any(box) else -1 for box in boxes]]),
        "boxes": torch.tensor([boxes], dtype=torch.float32),
    }
    images = [torch.from_numpy(frame.transpose(2, 0, 1).copy()) for frame in frames]
    return {
        "image": images,
        "supervision": "box",
        "video_id": 1,
        "frame_indices": list(range(len(frames))),
        "file_names": [f"v/{t}.png" for t in range(len(frames))],
        "tracks": tracks,
        "instances": FrameInstances(tracks, frames[0].shape[:2]),
    }


def _flat(value: int = 120) -> np.ndarray:
    return np.full((32, 40, 3), value, np.uint8)


def _noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (32, 40, 3), dtype=np.uint8)


BOX = [8.0, 8.0, 24.0, 24.0]  # 16 cells


def test_flat_frames_match_and_have_edges_everywhere():
    clip = look_at(_sample([_flat(), _flat()], [BOX, BOX]), "RGB", SETTINGS)
    assert clip.signals == Signals(32, 32, 16, 16)
    assert clip.signals.lines()[0].startswith("100 % of the cells inside boxes have a colour edge")


def test_noise_has_neither():
    frames = [np.kron(_noise(t)[:8, :10], np.ones((4, 4, 1), np.uint8)) for t in range(2)]
    signals = look_at(_sample(frames, [BOX, BOX]), "RGB", SETTINGS).signals
    assert (signals.num_cells, signals.num_pair_cells) == (32, 16)
    assert signals.match_share < 20
    assert signals.edge_share < 50


def test_only_frames_with_the_object_count():
    signals = look_at(_sample([_flat()] * 3, [BOX, [0.0] * 4, BOX]), "RGB", SETTINGS).signals
    assert (signals.num_cells, signals.num_pair_cells) == (32, 16)


def test_clip_without_objects_or_pairs():
    sample = _sample([_flat()], [BOX])
    for name, empty in (("labels", (0,)), ("ids", (0, 1)), ("boxes", (0, 1, 4))):
        sample["tracks"][name] = sample["tracks"][name].reshape(-1)[:0].reshape(empty)
    clip = look_at(sample, "RGB", SETTINGS)
    assert clip.signals == Signals()
    assert len(clip_rows(clip, ["cat"])) == 1


def test_bgr_frames_are_drawn_in_true_colours():
    frame = np.full((32, 40, 3), (0, 0, 255), np.uint8)  # red
    clip = look_at(_sample([frame], [[0.0] * 4]), "BGR", SETTINGS)
    assert clip.frames[0][0, 0].tolist() == [255, 0, 0]


def test_matches_are_drawn_in_the_colours_of_the_legend():
    flat = draw_matches(look_at(_sample([_flat(), _flat()], [BOX, BOX]), "RGB", SETTINGS), 0)
    blocks = [np.kron(_noise(t)[:8, :10], np.ones((4, 4, 1), np.uint8)) for t in range(2)]
    other = draw_matches(look_at(_sample(blocks, [BOX, BOX]), "RGB", SETTINGS), 0)
    assert flat.shape == (360, 450, 3)
    blue, red = (0, 200, 255), (255, 60, 60)
    assert (flat == blue).all(-1).any()
    assert not (flat == red).all(-1).any()
    assert (other == red).all(-1).any()


@pytest.fixture
def written(tmp_path):
    """A data set with frames, as dataset dicts."""
    content = plain_content(masks=True)
    json_file = write_json(tmp_path, content)
    return load_ytvis_json(json_file, write_frames(tmp_path, content), f"set_{tmp_path.name}")


def test_page_holds_everything_and_loads_nothing(tmp_path, written):
    clip = look_at(_sample([_flat(), _flat()], [BOX, BOX]), "RGB", SETTINGS)
    statistics = describe_videos(written)
    statistics.suspicions = [Suspicion(1, 10, (1, 2), "jumps <far>", 2.0)]
    statistics.problems, statistics.notes = ["frame 3 is bad"], ["frame 4 is deep"]
    path = tmp_path / "page.html"
    write_page(
        *(path, "My <set>", written, statistics, [clip], (clip.signals, 1)),
        ["cat", "dog", "emu"],
    )
    text = path.read_text(encoding="utf-8")
    assert "My &lt;set&gt;" in text
    assert "jumps &lt;far&gt;" in text
    assert "frame 3 is bad" in text
    assert "frame 4 is deep" in text
    assert text.count("<svg") == 3
    assert text.count("data:image/jpeg") == 5  # two frames, a pair, and two of the suspicion
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def test_page_of_a_set_without_objects(tmp_path):
    write_page(*(tmp_path / "page.html", "x", [], DataStatistics(), [], (Signals(), 0), ["cat"]))
    assert "There are none" in (tmp_path / "page.html").read_text()


def test_lines(written):
    statistics = describe_videos(written)
    statistics.suspicions = [Suspicion(1, 10, (t, t + 1), "jumps", 2.0) for t in range(7)]
    statistics.problems, statistics.notes = ["a"], ["b"]
    lines = report_lines(statistics, Signals(4, 2, 4, 1), 3, ["cat", "dog", "emu"])
    text = "\n".join(lines)
    assert lines[0] == "2 videos, 7 frames, 4 tracks, 12 boxes, 12 masks."
    assert "  cat: 2 tracks, 5 boxes" in lines
    assert "In 3 clips, 50 % of the cells inside boxes have a colour edge" in text
    assert "In 3 clips, 25 % of the cells inside boxes have a temporal match" in text
    assert "Problem: a" in text
    assert "Note: b" in text
    assert "7 places to look at" in text
    assert text.count("jumps") == 5
