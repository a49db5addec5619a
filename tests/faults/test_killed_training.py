"""Trainings that are killed, stopped or disturbed, as processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from tests.helpers.killed_training import (
    SHORT,
    figures,
    start_training,
    train,
    train_and_kill,
    wait_for,
    weights_hash,
)
from tests.helpers.ranks import run_two_ranks
from tests.helpers.trainers import make_trainer
from tests.helpers.training import tiny_options
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow

#: No evaluation, and no checkpoint before a signal.
ENDLESS = (
    *("SOLVER.MAX_ITER", 5000, "SOLVER.CHECKPOINT_PERIOD", 5000, "DATASETS.TEST", "()"),
    *("LOG.REPORT", False),
)
#: Two processes on this machine.
_TWO = ("--num-gpus", 2, "--device", "cpu")
#: A short training.
_FEW = (
    *("SOLVER.MAX_ITER", 7, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.IMS_PER_BATCH", 2),
    *("DATASETS.TEST", "()", "LOG.REPORT", False, "INPUT.RANDOM_FLIP", "flip_by_clip"),
)
#: Of killing a training before it ends; this process may wake up too late on a busy machine.
_ATTEMPTS = 5


@pytest.fixture(scope="module")
def whole(tiny_videos, tmp_path_factory) -> Path:
    """A training without a kill, and without workers."""
    folder = tmp_path_factory.mktemp("whole")
    train(tiny_options(tiny_videos, folder, *SHORT))
    return folder


@pytest.mark.parametrize(("workers", "kills"), [(0, 2), (2, 1)])
def test_weights_and_metrics_are_those_of_a_training_without_kills(
    whole, tiny_videos, tmp_path, workers, kills
):
    rng = random.Random(workers)
    for attempt in range(_ATTEMPTS):
        folder = tmp_path / str(attempt)
        words = tiny_options(tiny_videos, folder, *SHORT, "DATALOADER.NUM_WORKERS", workers)
        if all(train_and_kill(words, rng.uniform(0, 1.5)) for _ in range(kills)):
            break
    else:
        pytest.fail("the training always ended before it was killed")
    train(words)
    assert weights_hash(folder) == weights_hash(whole)
    assert figures(folder) == figures(whole)


class _Kill(HookBase):
    """Kills this process after a step."""

    def __init__(self, iteration: int) -> None:
        self._iteration = iteration

    def after_step(self) -> None:
        if self.trainer.iter == self._iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def _train_rank(rank: int, videos: Path, folder: Path, kill_at: int) -> int:
    """Train on to the end; returns the first step."""
    torch.set_num_threads(1)
    comm.create_local_process_group(2)
    trainer = make_trainer(videos, folder, *_FEW, resume=True)
    trainer.register_hooks([_Kill(kill_at)])
    trainer.train()
    return trainer.start_iter


def test_two_processes_resume_as_if_they_had_not_been_killed(tiny_videos, tmp_path):
    def train_both(folder: str, kill_at: int = -1) -> list[int]:
        meeting = Path(tempfile.mkdtemp(dir=tmp_path))
        return run_two_ranks(_train_rank, meeting, tiny_videos, tmp_path / folder, kill_at)

    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        train_both("killed", kill_at=4)
    assert train_both("killed") == [4, 4]  # step 4 was done, and is done again
    assert train_both("whole") == [0, 0]
    assert weights_hash(tmp_path / "killed") == weights_hash(tmp_path / "whole")
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")


def test_workers_end_with_a_killed_training(tiny_videos, tmp_path):
    """Also where it is killed while they start; they would hold its pipe open."""
    words = tiny_options(tiny_videos, tmp_path, *ENDLESS, "DATALOADER.NUM_WORKERS", 2)
    process = start_training(words)
    wait_for(process)
    workers: list[int] = []
    while not workers:
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], stdout=-1)
        workers = [int(pid) for pid in found.stdout.split()]
    process.kill()
    process.communicate(timeout=300)
    assert wait_until(lambda: not any(map(_is_alive, workers)))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("number", "code", "options"),
    [
        (signal.SIGTERM, 143, ("DATALOADER.NUM_WORKERS", 2)),
        (signal.SIGINT, 130, _TWO),
    ],
    ids=["SIGTERM with workers", "Ctrl-C with two processes"],
)
def test_signal_to_all_processes_leaves_a_checkpoint(tiny_videos, tmp_path, number, code, options):
    words = tiny_options(tiny_videos, tmp_path, *ENDLESS, "SOLVER.CHECKPOINT_PERIOD", 2)
    words = [*options, *words] if "--num-gpus" in options else [*words, *options]
    process = start_training(words, start_new_session=True)
    try:
        wait_for(process, "Saving checkpoint")
        os.killpg(process.pid, number)  # as a terminal and a scheduler do
        said = process.communicate(timeout=600)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert said.count("The same command with --resume goes on.") == 1
    saved = (tmp_path / "last_checkpoint").read_text()
    assert f"{tmp_path / saved} is saved" in said


def test_second_run_in_a_folder_is_refused(tiny_videos, tmp_path):
    words = tiny_options(tiny_videos, tmp_path, *ENDLESS)
    process = start_training(words)
    try:
        wait_for(process)
        before = (tmp_path / "config.yaml").stat().st_mtime_ns
        second = start_training(words)
        said = second.communicate(timeout=600)[0]
        assert second.returncode == 2, said
        assert f"OUTPUT_DIR: another run works in '{tmp_path}' (process {process.pid}" in said
        assert "Traceback" not in said
        assert (tmp_path / "config.yaml").stat().st_mtime_ns == before
    finally:
        process.kill()
        process.communicate()


def test_full_disk_is_reported_by_its_first_cause(tiny_videos, tmp_path, monkeypatch):
    """Files may have 20 kB: log, metrics and TensorBoard may go on, the checkpoint may not."""
    words = tiny_options(tiny_videos, tmp_path, "SOLVER.MAX_ITER", 2, "DATASETS.TEST", "()")
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # it writes more than that
    process = start_training(words, preexec_fn=_limit_files)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 2, said
    assert "Traceback" not in said
    assert "Logging error" not in said
    errors = [line for line in said.splitlines() if line.startswith("CheckpointError: ")]
    assert len(errors) == 1
    assert "model_final.pth could not be written" in errors[0]
    assert not list(tmp_path.glob("*.tmp"))


def _limit_files() -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
