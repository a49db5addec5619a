"""Trainings that are killed, and go on."""

from __future__ import annotations

import functools
import random
import tempfile
from pathlib import Path

from tests.faults.attack.cases import attack
from tests.helpers.killed_training import SHORT, figures, train, train_and_kill, weights_hash
from tests.helpers.training import tiny_options, write_videos

_LONGEST = 2.5  # seconds between the first step and the kill


@functools.lru_cache
def _unkilled() -> tuple[tempfile.TemporaryDirectory, Path, str, list[dict]]:
    """Videos, and what a training on them that nobody kills ends with."""
    holder = tempfile.TemporaryDirectory(prefix="attack-videos-")
    videos = write_videos(Path(holder.name) / "videos")
    output = Path(holder.name) / "output"
    train(tiny_options(videos, output, *SHORT))
    return holder, videos, weights_hash(output), figures(output)


@attack(
    "`kill -9` of a training at a random moment, then `--resume`; 0 and 2 workers in turn",
    "SHA-256 of the final weights and every row of metrics.json as without the kill",
    count=50,
    quick=1,  # more of them are in tests/faults/test_killed_training.py
    limit=600,
)
def kill_training(index: int, rng: random.Random, folder: Path) -> str | None:
    """Killed once, or twice, and trained to the end."""
    _, videos, expected, rows = _unkilled()
    output = folder / "output"
    words = tiny_options(videos, output, *SHORT, "DATALOADER.NUM_WORKERS", 2 * (index % 2))
    for _ in range(rng.choice([1, 1, 2])):
        train_and_kill(words, rng.uniform(0, _LONGEST))
    try:
        train(words)
    except AssertionError as error:
        return f"--resume failed: {str(error)[-300:]}"
    if weights_hash(output) != expected:
        return "other final weights"
    return None if figures(output) == rows else "other rows in metrics.json"
