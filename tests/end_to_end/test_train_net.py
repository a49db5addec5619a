"""tools/train_net.py as a user runs it: train, go on, evaluate, be killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.training import CONFIG, ROOT, tiny_options
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow


def _command(*words: object) -> tuple[list[str], dict]:
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config-file", CONFIG]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return command + [str(w) for w in words], {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
    }


def _run(*words: object) -> str:
    command, env = _command(*words)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tiny_videos, tmp_path_factory) -> tuple[Path, str]:
    """Folder of a training of 6 iterations that nobody writes to, and what it printed."""
    out = tmp_path_factory.mktemp("trained")
    return out, _run(*tiny_options(tiny_videos, out, "SOLVER.MAX_ITER", 6))


def test_train_evaluate_and_go_on(trained, tiny_videos, tmp_path):
    folder, said = trained
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    options = tiny_options(tiny_videos, out, "SOLVER.MAX_ITER", 6)
    assert said.index("Detectron2 provider") < said.index("Starting training from iteration 0")
    assert "AP50" in said
    assert {p.name for p in out.iterdir()} >= {
        "config.yaml",
        "inference",
        "last_checkpoint",
        "log.txt",
        "metrics.json",
        "model_0000005.pth",
        "model_final.pth",
    }
    after_training = json.loads((out / "inference" / "results.json").read_text())
    assert len({track["video_id"] for track in after_training}) == 2

    (out / "inference" / "results.json").unlink()
    said = _run("--eval-only", *options, "MODEL.WEIGHTS", out / "model_final.pth")
    assert f"--eval-only: evaluating {out / 'model_final.pth'}" in said
    assert json.loads((out / "inference" / "results.json").read_text()) == after_training

    said = _run("--eval-only", "--resume", *options, "MODEL.WEIGHTS", out / "model_0000001.pth")
    assert f"--eval-only: evaluating {out / 'model_final.pth'}" in said

    said = _run("--resume", *options, "SOLVER.MAX_ITER", 8)
    assert "Starting training from iteration 6" in said
    assert torch.load(out / "model_final.pth", weights_only=True)["iteration"] == 7


@pytest.mark.parametrize("processes", [1, 2])
def test_both_heads_train_and_evaluate(tiny_videos, tmp_path, processes):
    out = tmp_path / "out"
    heads = ("MODEL.MULTIMASK.ENABLED", True, "MODEL.SPATIAL_MASK.ENABLED", True)
    words = ["--num-gpus", processes, "--dist-url", "auto", "--device", "cpu"]
    said = _run(
        *(words if processes > 1 else ()),
        *tiny_options(tiny_videos, out, "SOLVER.MAX_ITER", 3, "VIS_PERIOD", 1, *heads),
        *("MODEL.SPATIAL_MASK.LOSS.BOX_MODE", "weak"),
    )
    assert ("World size: 2" in said) is (processes == 2)
    assert "AP50" in said
    last = [line for line in _metrics(out) if "total_loss" in line][-1]
    assert last["loss_iou"] > 0
    assert last["loss_class_0"] > 0
    assert last["loss_spatial_box"] > 0
    assert last["loss_spatial_mask"] == 0
    assert last["raw/mask_proj"] == pytest.approx(last["loss_mask_proj"] / 5)
    results = json.loads((out / "inference" / "results.json").read_text())
    assert len({track["video_id"] for track in results}) == 2


def test_user_error_of_a_process_ends_all_with_exit_code_2(tiny_videos, tmp_path):
    options = tiny_options(tiny_videos, tmp_path / "out", "SOLVER.IMS_PER_BATCH", 3)
    command, env = _command("--num-gpus", 2, "--dist-url", "auto", "--device", "cpu", *options)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2, done.stderr
    assert "ConfigError: SOLVER.IMS_PER_BATCH" in done.stderr
    assert "Traceback" not in done.stderr


def test_killed_training_goes_on(tiny_videos, tmp_path):
    """Kill it twice at random moments; each time it goes on from its last checkpoint."""
    out = tmp_path / "out"
    options = tiny_options(tiny_videos, out, "SOLVER.MAX_ITER", 1000, "SOLVER.CHECKPOINT_PERIOD", 1)
    options += ["DATASETS.TEST", "()"]
    rng = random.Random(0)
    reached = -1
    for _ in range(2):
        command, env = _command("--resume", *options)
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            start = next(line for line in process.stdout if "Starting training from" in line)
            assert int(start.split()[-1]) == reached + 1
            assert wait_until(lambda n=reached + 3: len(list(out.glob("model_*.pth"))) >= n)
            time.sleep(rng.uniform(0.0, 0.5))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        newest = (out / "last_checkpoint").read_text()
        iteration = torch.load(out / newest, weights_only=True)["iteration"]
        assert iteration > reached
        reached = iteration
    said = _run("--resume", *options, "SOLVER.MAX_ITER", reached + 2)
    assert f"Starting training from iteration {reached + 1}" in said
    assert not list(out.glob("*.tmp"))


def test_evaluation_can_be_scored_without_a_model(trained, tiny_videos, tmp_path):
    """What is evaluated after training is what tools/evaluate.py says about results.json."""
    out, _ = trained
    metrics = {k: v for line in _metrics(out) for k, v in line.items()}
    command = [sys.executable, str(ROOT / "tools" / "evaluate.py")]
    command += ["--gt", str(tiny_videos / "val.json")]
    command += ["--results", str(out / "inference" / "results.json")]
    command += ["--json", str(tmp_path / "scores.json")]
    _, env = _command()
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=600)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["AP50"] == pytest.approx(metrics["segm/AP50"])
