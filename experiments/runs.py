"""The runs of an experiment: which are finished, and training those that are not.

Every run is a child process of ``tools/train_net.py`` with one thread. Its folder, ``runs/VARIANT/
seedK``, is its OUTPUT_DIR, and holds two more files: ``run.json`` with its settings and whether it
is finished, and ``console.txt`` with what the process printed.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.spec import Experiment, Variant
from maskfreevis_ext.engine.report.figures import last_iteration
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.files import write_json

ROOT = Path(__file__).resolve().parents[1]
TRAIN_NET = ROOT / "tools" / "train_net.py"

#: Rounding depends on how sums are split over threads; one thread gives the same anywhere.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

#: Variables of starters of distributed jobs, which would make a run a part of such a job.
_OF_STARTERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID")

_POLL_SECONDS = 0.5
_TERMINATE_SECONDS = 20.0  # what a process gets for ending by itself


@dataclass(frozen=True)
class Run:
    """One training: a variant and a seed.

    Attributes:
        variant: The variant.
        seed: Value of SEED.
        folder: Its OUTPUT_DIR.
        iterations: SOLVER.MAX_ITER of its config.
    """

    variant: Variant
    seed: int
    folder: Path
    iterations: int

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"{self.variant.name}/seed{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """What a run that goes on must have in common with the one that was started."""
        variant = self.variant
        return {"config": variant.config, "options": list(variant.options), "seed": self.seed}

    def command(self) -> list[str]:
        """The words of the child process, which goes on from the newest checkpoint if any."""
        resume = ["--resume"] if (self.folder / "last_checkpoint").is_file() else []
        return [
            *(sys.executable, str(TRAIN_NET), "--config-file", self.variant.config, *resume),
            *self.variant.options,
            *("SEED", str(self.seed), "OUTPUT_DIR", str(self.folder)),
        ]

    def record(self) -> dict[str, Any]:
        """The content of ``run.json``; empty where the run was not started.

        Raises:
            DataError: The file is damaged.
        """
        path = self.folder / "run.json"
        if not path.is_file():
            return {}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}. Remove the folder.") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}: expected an object. Remove the folder.")
        return record

    def is_finished(self) -> bool:
        """Whether the training ended and was evaluated."""
        return bool(self.record().get("finished"))

    def write_record(self, finished: bool, seconds: float) -> None:
        """Write ``run.json``.

        Args:
            finished: The training ended without an error.
            seconds: Time that it took so far.
        """
        record = {**self.settings, "commit": commit(), "finished": finished, "seconds": seconds}
        write_json(record, self.folder / "run.json", indent=2)


@functools.cache
def commit() -> str:
    """The commit of the code, with "+" where files differ from it; "" outside a git checkout."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def plan_runs(experiment: Experiment, folder: Path, iterations: Sequence[int]) -> list[Run]:
    """All runs of an experiment, seed by seed, so that each variant soon has one.

    Args:
        experiment: The experiment.
        folder: Its folder.
        iterations: SOLVER.MAX_ITER of each variant.

    Returns:
        The runs.

    Raises:
        ConfigError: A run was started with other settings.
        DataError: A ``run.json`` is damaged.
    """
    runs = [
        Run(variant, seed, folder / "runs" / variant.name / f"seed{seed}", steps)
        for seed in experiment.seeds
        for variant, steps in zip(experiment.variants, iterations, strict=True)
    ]
    for run in runs:
        record = run.record()
        for key, value in run.settings.items():
            if record and record.get(key) != value:
                raise ConfigError(
                    f"{run.folder}: this run was started with other settings: {key} is "
                    f"{record.get(key)!r} there and {value!r} here. Give the experiment another "
                    "name or --output, or remove the folder."
                )
    return runs


class _Child:
    """A run whose process is at work."""

    def __init__(self, run: Run) -> None:
        """Start the process.

        Raises:
            ConfigError: A process of an earlier call is still at work in the folder.
        """
        self.run = run
        run.folder.mkdir(parents=True, exist_ok=True)
        self._seconds_before = float(run.record().get("seconds", 0.0))
        self._start = time.monotonic()
        environment = {k: v for k, v in os.environ.items() if k not in _OF_STARTERS} | ONE_THREAD
        # The child inherits the lock and holds it until it ends, also where this process is killed.
        with open(run.folder / "lock", "a") as lock, open(run.folder / "console.txt", "a") as log:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"{run.folder}: a process of an earlier call still trains here. Wait until it "
                    "ends, or end it."
                ) from None
            run.write_record(False, self._seconds_before)
            self.process = subprocess.Popen(  # noqa: S603
                run.command(),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(lock.fileno(),),
            )

    def seconds(self) -> float:
        """Time that the run took, those of earlier calls included."""
        return self._seconds_before + time.monotonic() - self._start

    def stop(self) -> None:
        """End the process, kindly at first."""
        self.process.terminate()
        try:
            self.process.wait(_TERMINATE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.run.write_record(self.process.returncode == 0, self.seconds())


def train_runs(runs: Sequence[Run], jobs: int, say: Callable[[str], None]) -> list[Run]:
    """Train all runs that are not finished, some at a time, with progress and remaining time.

    A run that fails does not stop the others. When this process is interrupted, the processes of
    the runs are ended; the next call goes on from their checkpoints.

    Args:
        runs: The runs.
        jobs: How many are at work at once.
        say: Takes a line about the beginning or end of a run.

    Returns:
        The runs that failed.

    Raises:
        ConfigError: A process of an earlier call is still at work on a run.
    """
    waiting = [run for run in runs if not run.is_finished()]
    num_finished = len(runs) - len(waiting)
    if num_finished:
        say(f"{num_finished} of {len(runs)} runs are finished already")
    done = sum(run.iterations for run in runs if run.is_finished())
    failed: list[Run] = []
    working: list[_Child] = []
    with _progress_bar(runs, done + sum(map(_reached, waiting))) as bar:
        try:
            while waiting or working:
                while waiting and len(working) < jobs:
                    run = waiting.pop(0)
                    reached = _reached(run)
                    working.append(_Child(run))
                    say(f"{run.name}: " + (f"goes on from {reached}" if reached else "starts"))
                time.sleep(_POLL_SECONDS)
                for child in [one for one in working if one.process.poll() is not None]:
                    working.remove(child)
                    done += child.run.iterations
                    if not _finish(child, say):
                        failed.append(child.run)
                at_work = sum(_reached(child.run) for child in working)
                bar.set_postfix_str(
                    f"{len(runs) - len(waiting) - len(working)} of {len(runs)} runs done",
                    refresh=False,
                )
                bar.update(max(0, done + at_work + sum(map(_reached, waiting)) - bar.n))
        finally:
            for child in working:
                child.stop()
    return failed


def _progress_bar(runs: Sequence[Run], start: int) -> tqdm:
    """Iterations of all runs together; the remaining time is at their mean speed in this call."""
    is_terminal = sys.stderr.isatty()
    return tqdm(
        total=sum(run.iterations for run in runs),
        initial=start,
        unit="it",
        smoothing=0,
        mininterval=1 if is_terminal else 60,
        dynamic_ncols=is_terminal,
    )


def _reached(run: Run) -> int:
    """Iterations that the log of a run shows."""
    return min(run.iterations, last_iteration(run.folder / "metrics.json"))


def _finish(child: _Child, say: Callable[[str], None]) -> bool:
    """Record how a process ended; whether without an error."""
    run, code = child.run, child.process.returncode
    run.write_record(code == 0, child.seconds())
    if code == 0:
        say(f"{run.name}: finished after {child.seconds() / 60:.1f} minutes")
        return True
    console = run.folder / "console.txt"
    lines = console.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    say(f"{run.name}: FAILED with exit code {code}: {lines[-1] if lines else ''} ({console})")
    return False
