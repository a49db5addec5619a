"""Trainings as processes that are killed, and what must be equal to one that is not.

words = tiny_options(videos, output, *SHORT)
while train_and_kill(words, random.uniform(0, 3)):  # kill -9; goes on from its checkpoint
    pass
assert weights_hash(output) == weights_hash(other)
assert figures(output) == figures(other)
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.helpers.training import CONFIG, ROOT

#: Further keys for ``tiny_options``: 24 steps, with a row of metrics.json in the middle.
SHORT = (
    *("SOLVER.MAX_ITER", 24, "SOLVER.CHECKPOINT_PERIOD", 4, "TEST.EVAL_PERIOD", 10),
    *("LOG.REPORT", False, "INPUT.RANDOM_FLIP", "flip_by_clip"),
)
#: Figures that are times.
_TIMES = {"time", "data_time", "rank_data_time", "eta_seconds"}
#: What a training prints when it has gone on from its checkpoint.
_STARTED = "Starting training from iteration"


def start_training(words: Sequence[object], **options: object) -> subprocess.Popen[str]:
    """Start ``tools/train_net.py --resume``; its output and errors are one stream.

    Args:
        words: Words of the command, usually ``tiny_options``.
        options: Further arguments of ``Popen``.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config-file", CONFIG]
    return subprocess.Popen(
        [*command, "--resume", *map(str, words)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def wait_for(process: subprocess.Popen[str], text: str = _STARTED) -> str:
    """Read what a training prints until a line has a text; returns all of that.

    Raises:
        AssertionError: The process ended before.
    """
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} was not printed:\n{said}")


def train(words: Sequence[object], timeout: float = 600) -> str:
    """Train to the end, from the newest checkpoint if there is one; returns what was printed.

    Raises:
        AssertionError: The exit code is not 0.
    """
    process = start_training(words)
    said = process.communicate(timeout=timeout)[0]
    assert process.returncode == 0, said
    return said


def train_and_kill(
    words: Sequence[object], seconds: float, number: signal.Signals = signal.SIGKILL
) -> bool:
    """Train on, and send a signal some time after the first step has begun.

    Args:
        words: As in ``start_training``.
        seconds: Time between the first step and the signal.
        number: The signal.

    Returns:
        Whether the training was still at work; otherwise it had come to its end.

    Raises:
        AssertionError: The training ended with an error of its own.
    """
    process = start_training(words)
    assert process.stdout is not None
    try:
        said = wait_for(process)
        time.sleep(seconds)
        is_at_work = process.poll() is None
        process.send_signal(number)
        said += process.stdout.read()
        code = process.wait(timeout=600)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert code in (0, -number, 128 + number), said
    return is_at_work and code != 0


def weights_hash(folder: Path | str, name: str = "model_final.pth") -> str:
    """SHA-256 of the names and values of a checkpoint's weights."""
    weights = torch.load(Path(folder, name), weights_only=True)["model"]
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode())
        digest.update(weights[key].contiguous().numpy().tobytes())
    return digest.hexdigest()


def figures(folder: Path | str) -> list[dict[str, float | None]]:
    """The rows of ``metrics.json`` without times.

    Raises:
        ValueError: A row is no strict JSON.
    """
    lines = Path(folder, "metrics.json").read_text().splitlines()
    rows = [json.loads(line, parse_constant=_refuse) for line in lines]
    return [{key: row[key] for key in row if key not in _TIMES} for row in rows]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
