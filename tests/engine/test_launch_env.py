"""Processes that torchrun or Slurm has started find each other."""

from __future__ import annotations

import doctest
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from maskfreevis_ext.engine import launch_env
from maskfreevis_ext.engine.launch_env import Place, check_options, first_host, read_place
from maskfreevis_ext.errors import ConfigError
from tests.helpers.training import CONFIG, ROOT, tiny_options

TRAIN_NET = str(ROOT / "tools" / "train_net.py")
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
SLURM = {
    **{"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"},
    **{"SLURM_JOB_NODELIST": "gpu[07,09]", "SLURM_JOB_ID": "123456"},
}


def test_examples():
    assert doctest.testmod(launch_env).failed == 0


def test_torchrun_says_which_process_this_is():
    master = {"MASTER_ADDR": "first", "MASTER_PORT": "1234"}
    assert read_place({**TORCHRUN, **master}) == Place("torchrun", 3, 4, 1, "first", 1234)
    assert read_place(TORCHRUN).url == "tcp://127.0.0.1:29500"
    assert read_place({**TORCHRUN, "MASTER_ADDR": "fe80::1"}).url == "tcp://[fe80::1]:29500"


def test_slurm_says_which_process_this_is():
    assert read_place(SLURM) == Place("Slurm", 3, 4, 1, "gpu07", 23456)
    assert read_place({**SLURM, "SLURM_JOB_NODELIST": "gpu07"}).host == "127.0.0.1"
    assert read_place({**SLURM, "SLURM_STEP_NODELIST": "gpu[09-10]"}).host == "gpu09"
    assert read_place({**SLURM, "MASTER_ADDR": "a", "MASTER_PORT": "5"}).url == "tcp://a:5"
    assert read_place({**SLURM, **TORCHRUN}).starter == "torchrun"  # srun started torchrun


@pytest.mark.parametrize(
    "environment",
    [{}, {"SLURM_NTASKS": "4"}, {"SLURM_PROCID": "0"}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}],
)
def test_nobody_has_started_several_processes(environment):
    assert read_place(environment) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"WORLD_SIZE": None},
            "WORLD_SIZE: expected a whole number .*, it is not set",
        ),
        (
            {"LOCAL_RANK": None},
            "LOCAL_RANK: expected a whole number .*, it is not set",
        ),
        ({"RANK": "one"}, "RANK: expected a whole number .*, got 'one'"),
        ({"RANK": "-1"}, "RANK: expected a whole number .*, got '-1'"),
        ({"RANK": "4"}, "got rank 4, 4 processes, local rank 1"),
        ({"LOCAL_RANK": "9"}, "got rank 3, 4 processes, local rank 9"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT: .* 65535, got '65536'"),
        (
            {"MASTER_PORT": "http"},
            "MASTER_PORT: .* 65535, got 'http'",
        ),
    ],
)
def test_variables_that_make_no_sense_are_named(change, message):
    environment = {k: v for k, v in {**TORCHRUN, **change}.items() if v is not None}
    with pytest.raises(ConfigError, match=message):
        read_place(environment)


def test_list_of_machines_must_be_one():
    for text in ("", "[1-2]x]", "a b", "node[1-2"):
        with pytest.raises(ConfigError, match="SLURM_JOB_NODELIST"):
            first_host(text)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("machines", [1, 2])
def test_options_that_say_the_same_are_taken(processes, machines):
    place = Place("torchrun", 1, processes * machines, 0, "a", 1)
    check_options(place, processes, machines)
    check_options(place, 1, 1)  # not given


@pytest.mark.parametrize(("processes", "machines"), [(3, 1), (8, 1), (2, 4), (1, 2)])
def test_options_that_contradict_are_refused(processes, machines):
    place = Place("Slurm", 3, 4, 1, "a", 1)
    with pytest.raises(ConfigError, match=r"--num-gpus: Slurm has started 4 processes .*Leave out"):
        check_options(place, processes, machines)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def _command(videos: Path, output: Path, *words: str) -> list[str]:
    options = tiny_options(videos, output, "SOLVER.MAX_ITER", 2)
    return [TRAIN_NET, "--config-file", CONFIG, *words, *options]


def _check_training(output: Path) -> None:
    log = (output / "log.txt").read_text()
    assert "World size: 2" in log
    assert (output / "log.txt.rank1").is_file()
    assert (output / "model_final.pth").is_file()
    last = (output / "metrics.json").read_text().splitlines()[-1]
    assert "segm/AP50" in json.loads(last)
    tracks = json.loads((output / "inference" / "results.json").read_text())
    assert len({track["video_id"] for track in tracks}) == 2


@pytest.mark.slow
def test_torchrun_starts_without_further_flags(tiny_videos, tmp_path):
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", _free_port()]
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, *_command(tiny_videos, tmp_path / "out")],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    _check_training(tmp_path / "out")


def _run_slurm(*words: str) -> list[tuple[int, str]]:
    """Run two processes as srun starts them on one machine; exit code and error stream of each."""
    port = _free_port()
    processes = []
    for rank in "01":
        variables = {"SLURM_PROCID": rank, "SLURM_NTASKS": "2", "SLURM_LOCALID": rank}
        variables |= {"SLURM_JOB_NODELIST": "node7", "MASTER_PORT": port}
        processes.append(
            subprocess.Popen(
                [sys.executable, *words],
                env=_environment(**variables),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        return [(p.returncode, said) for p in processes for _, said in [p.communicate(timeout=300)]]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_slurm_starts_without_further_flags(tiny_videos, tmp_path):
    for code, said in _run_slurm(*_command(tiny_videos, tmp_path / "out")):
        assert code == 0, said
    _check_training(tmp_path / "out")


@pytest.mark.slow
def test_contradiction_is_one_line_of_every_process(tiny_videos, tmp_path):
    for code, said in _run_slurm(*_command(tiny_videos, tmp_path / "out", "--num-gpus", "4")):
        assert code == 2
        assert "ConfigError: --num-gpus: Slurm has started 2 processes in all" in said
        assert "Traceback" not in said
