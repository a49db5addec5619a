"""A training of the project is the same on both providers: every logged number, every weight."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskfreevis_ext import _provider, provider_info
from tests.helpers.training import CONFIG, ROOT, tiny_options, write_videos

TIMES = ("time", "data_time", "rank_data_time", "eta_seconds")


def _train(choice: str, videos: Path, output: Path) -> tuple[list[dict], dict]:
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config-file", CONFIG]
    options = tiny_options(videos, output, "DATALOADER.NUM_WORKERS", 1, "SOLVER.WARMUP_ITERS", 2)
    env = {**os.environ, _provider.ENV_VARIABLE: choice, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *options], env=env, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Detectron2 provider: {choice}" in (output / "log.txt").read_text().splitlines()[0]
    lines = (output / "metrics.json").read_text().splitlines()
    rows = sorted((json.loads(line) for line in lines), key=lambda row: row["iteration"])
    rows = [{k: 0 if k in TIMES else v for k, v in row.items()} for row in rows]
    saved = torch.load(output / "model_final.pth", weights_only=True)
    return rows, saved


@pytest.mark.slow
@pytest.mark.skipif(
    provider_info().name != "real", reason="compares the two, so it needs the real package"
)
def test_training_does_not_depend_on_the_provider(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "videos")
    real_rows, real = _train("real", videos, tmp_path / "real")
    embedded_rows, embedded = _train("embedded", videos, tmp_path / "embedded")
    assert embedded_rows == real_rows
    assert sorted(embedded) == sorted(real)
    assert list(embedded["model"]) == list(real["model"])
    for name, value in real["model"].items():
        assert torch.equal(embedded["model"][name], value), name
    assert embedded["trainer"]["hooks"] == real["trainer"]["hooks"]
    assert {p.name.split(".")[0] for p in (tmp_path / "real").iterdir()} == {
        p.name.split(".")[0] for p in (tmp_path / "embedded").iterdir()
    }
