"""The parts of the device measurements that a CPU can run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from benchmarks.command_line import main
from benchmarks.jobs import gpu
from benchmarks.options import parse_args
from tests.tools.test_benchmark import LOSSES, OPTS, ROOT, STEP

TINY = {
    "criterion": LOSSES[6:],
    "deform_attn": ["--height", "32", "--width", "64", "--channels", "32", "--heads", "4"],
    "step": [*STEP[:4], *STEP[8:]],
    "infer": [
        *("--height", "33", "--width", "50", "--lengths", "2", "--long", "--sides", "literal"),
        *("--opts", *OPTS),
    ],
}


@pytest.mark.slow
def test_all_jobs_run_in_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "PLAN", TINY)
    words = ["gpu", "--rounds", "1", "--threads", "1", "--warmup", "0"]
    result = gpu.run(parse_args(words))
    names = {side.name for side in result.sides}
    assert {"criterion: ours", "deform_attn: ours", "step: ours", "infer: literal, T = 2"} <= names
    assert names == set(result.figures)
    for side in result.sides:
        assert not side.baseline or side.baseline in names
    assert result.details["largest_batch"] == 2
    text = "\n".join(result.notes)
    for part in ("reading the mask logits", "grid_sample", "largest batch", "Self CPU time total"):
        assert part in text


def _fits(most: int, tried: list[int]) -> Callable[[int], None]:
    def run(clips: int) -> None:
        tried.append(clips)
        if clips > most:
            raise torch.OutOfMemoryError("no room")

    return run


@pytest.mark.parametrize("most", [0, 1, 5, 8, 63, 64, 200])
def test_largest_batch_is_found_in_few_steps(most: int) -> None:
    tried: list[int] = []
    assert gpu.largest_batch(_fits(most, tried), 64) == min(most, 64)
    assert len(tried) <= 14


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def run(clips: int) -> None:
        raise RuntimeError("another fault")

    with pytest.raises(RuntimeError, match="another fault"):
        gpu.largest_batch(run, 4)


def test_a_device_alone_asks_for_everything() -> None:
    options = parse_args(["--device", "cuda", "--rounds", "2"])
    assert (options.command, options.device, options.rounds) == ("gpu", "cuda", 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--device", "cuda"])
    assert capsys.readouterr().out == "skipped: PyTorch sees no CUDA device on this machine\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_tests_are_skipped_in_one_line() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert len(lines) == 1
    assert "no CUDA device" in lines[0]
