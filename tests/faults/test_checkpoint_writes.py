"""Saving on a full disk, and being killed while saving."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.files import remove_unfinished
from tests.helpers.training import ROOT

# Saves a model filled with 1, 2, 3, ... for ever, or until the disk is full.
WRITER = """
import logging, resource, signal, sys
import maskfreevis_ext
import torch
from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.errors import CheckpointError
logging.basicConfig(level=logging.ERROR, stream=sys.stdout)
folder, names, limit = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])
model = torch.nn.Linear(1000, 1000)
checkpointer = SafeCheckpointer(model, folder, max_to_keep=2)
for i in range(1, 1000000):
    torch.nn.init.constant_(model.weight, i)
    if limit and i == 2:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        checkpointer.save(names[i % len(names)], iteration=i)
    except CheckpointError as e:
        print("stopped:", e, flush=True)
        sys.exit(2)
    print("saved", i, flush=True)
"""


def start_writer(folder: Path, names: str, limit: int = 0) -> subprocess.Popen:
    """Start ``WRITER``, with a limit of bytes a file from the second checkpoint on."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), names, str(limit)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_writer(folder: Path, names: str, seconds: float) -> int:
    """Start ``WRITER`` and kill it some time after its second checkpoint; the last one reported."""
    process = start_writer(folder, names)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("saved 2"):
                break
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
    reported = [int(line.split()[1]) for line in rest.splitlines() if line.startswith("saved")]
    return max([2, *reported])


def resume_checkpoint(folder: Path) -> int:
    """Go on as after a crash; gives the iteration of the checkpoint, which must be whole."""
    remove_unfinished(str(folder))
    model = torch.nn.Linear(1000, 1000)
    iteration = SafeCheckpointer(model, str(folder)).resume_or_load("", resume=True)["iteration"]
    assert (model.weight == iteration).all()
    return iteration


@pytest.mark.slow
def test_full_disk_keeps_the_previous_checkpoint(tmp_path):
    process = start_writer(tmp_path, "model_a", limit=1_000_000)  # a checkpoint takes 4 MB
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 2, said
    assert "saved 1\n" in said
    assert said.count("could not be written") == 3, said
    assert "stopped:" in said
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["checkpoints.json", "last_checkpoint", "model_a.pth"]
    assert resume_checkpoint(tmp_path) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", ["model_last", "model_a,model_b,model_c", "model_1,model_2,model_3,model_4"]
)
def test_kill_while_saving_never_costs_a_checkpoint(tmp_path, names):
    rng = random.Random(0)
    for kill in range(3):
        folder = tmp_path / str(kill)
        newest = kill_writer(folder, names, rng.uniform(0.0, 0.1))
        # Whatever it had reported as saved is there, or something newer.
        assert resume_checkpoint(folder) >= newest
        if names.startswith("model_1"):  # numbered: old ones are removed, never too many
            assert 2 <= len(list(folder.glob("model_*.pth"))) <= 3
