"""Inference of videos: every side in this process, and peak memory in processes of their own."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from benchmarks.command_line import main
from benchmarks.jobs.infer import STARTS, make_video, measure_side
from benchmarks.literal.inference import predict_whole_video
from benchmarks.options import INFER_SIDES, Options, parse_args
from tests.helpers.configs import tiny_cfg
from tests.helpers.fill import fill_module
from tests.tools.test_benchmark import OPTS

SMALL = ["--height", "33", "--width", "50", "--threads", "1"]
WINDOW = ["TEST.WINDOW.SIZE", "4", "TEST.WINDOW.STRIDE", "3"]


def _options(*more: str) -> Options:
    return parse_args(["infer", *SMALL, *more, "--opts", *OPTS, *WINDOW])


@pytest.mark.parametrize("kind", INFER_SIDES)
def test_each_side_is_measured(kind: str) -> None:
    found = measure_side(kind, 5, _options("--rounds", "2"))
    assert kind in STARTS
    assert len(found.seconds) == len(found.cpu_seconds) == 2
    assert min(found.seconds) > 0
    assert found.start_bytes > 0
    assert len(found.latencies) == {"literal": 0, "windows": 0, "stream": 2, "frames": 5}[kind]


def test_video_has_its_frames_and_moves() -> None:
    frames = list(make_video(_options(), 3))
    assert [frame.shape for frame in frames] == [(3, 33, 50)] * 3
    assert frames[0].dtype == torch.uint8
    assert not torch.equal(frames[0], frames[2])


def test_literal_inference_gives_what_the_model_gives() -> None:
    model = build_model(tiny_cfg()).eval()
    fill_module(model)
    frames = torch.stack(list(make_video(_options(), 3)))
    scores, labels, masks = predict_whole_video(model, frames, (40, 60), 10)
    result = model([{"image": list(frames), "height": 40, "width": 60}])[0]
    assert scores.tolist() == pytest.approx(result["pred_scores"], rel=1e-5)
    assert labels.tolist() == result["pred_labels"]
    # logits within rounding of zero may fall on either side
    assert (masks != torch.stack(result["pred_masks"])).float().mean() < 1e-4


@pytest.mark.slow
def test_report_compares_windows_with_the_whole_video(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    words = ["--lengths", "2", "--long", "5", "--sides", "literal", "windows"]
    main(["infer", *SMALL, *words, "--json", str(file), "--opts", *OPTS, *WINDOW])
    report = json.loads(file.read_text())
    assert set(report["sides"]) == {"literal, T = 2", "windows, T = 2", "windows, T = 5"}
    assert set(report["ratios"]) == {"windows, T = 2"}
    assert report["ratios"]["windows, T = 2"]["baseline"] == "literal, T = 2"
    assert report["environment"]["memory_is"].startswith("peak of the process")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "windows"])
def test_peak_memory_does_not_grow_with_the_length(kind: str) -> None:
    """The whole memory of the process: program, model, window and, with "windows", the tracks."""
    peaks = []
    for length in (64, 256):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found = pool.submit(measure_side, kind, length, _options("--rounds", "1")).result()
        peaks.append(found.start_bytes + found.peak_extra_bytes)
    assert peaks[1] <= 1.05 * peaks[0]
