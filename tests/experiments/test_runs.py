"""Which runs are trained, and what happens when they fail or are killed."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiments import runs as runs_module
from experiments.command_line import main
from experiments.runs import ONE_THREAD, Run, plan_runs, train_runs
from experiments.spec import parse_experiment
from maskfreevis_ext.errors import ConfigError, DataError
from tests.helpers.training import CONFIG, ROOT, tiny_options
from tests.helpers.waiting import wait_until

#: Stands in for tools/train_net.py: fails for seed 2, else writes its words and its threads.
FAKE = """
import json, os, sys
words = sys.argv[1:]
folder = words[words.index("OUTPUT_DIR") + 1]
with open(folder + "/metrics.json", "a") as file:
    print(json.dumps({"iteration": 9}), file=file)
with open(folder + "/called.json", "w") as file:
    json.dump({"words": words, "threads": os.environ["OMP_NUM_THREADS"],
               "rank": os.environ.get("RANK")}, file)
if words[words.index("SEED") + 1] == "2":
    sys.exit("ConfigError: no")
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch) -> list[Run]:
    fake = tmp_path / "train_net.py"
    fake.write_text(FAKE)
    monkeypatch.setattr(runs_module, "TRAIN_NET", fake)
    monkeypatch.setattr(runs_module, "_POLL_SECONDS", 0.02)
    monkeypatch.setenv("RANK", "0")
    return _plan(tmp_path)


def _plan(folder: Path, *, options: dict | None = None) -> list[Run]:
    variants = [{"name": "a"}, {"name": "b", "options": options or {"X.Y": 1}}]
    content = {"name": "e", "config": "c.yaml", "seeds": [1, 2], "variants": variants}
    return plan_runs(parse_experiment(content, "here"), folder / "e", [10, 20])


def _called(run: Run) -> dict:
    return json.loads((run.folder / "called.json").read_text())


def test_every_seed_of_every_variant_is_trained_with_one_thread(runs):
    lines: list[str] = []
    failed = train_runs(runs, 2, lines.append)
    assert [run.name for run in runs] == ["a/seed1", "b/seed1", "a/seed2", "b/seed2"]
    assert {run.name for run in failed} == {"a/seed2", "b/seed2"}
    assert _called(runs[1]) == {
        "words": [
            *("--config-file", "c.yaml", "X.Y", "1"),
            *("SEED", "1", "OUTPUT_DIR", str(runs[1].folder)),
        ],
        "threads": "1",
        "rank": None,
    }
    assert set(ONE_THREAD.values()) == {"1"}
    assert [run.is_finished() for run in runs] == [True, True, False, False]
    message = next(line for line in lines if "a/seed2: FAILED" in line)
    assert "exit code 1: ConfigError: no" in message
    assert "console.txt" in message


def test_finished_runs_are_skipped_and_started_ones_go_on(runs):
    train_runs(runs[:1], 1, lambda line: None)
    (runs[0].folder / "called.json").unlink()
    runs[1].folder.mkdir(parents=True)
    (runs[1].folder / "last_checkpoint").write_text("model_0000004.pth")
    lines: list[str] = []
    train_runs(runs[:2], 2, lines.append)
    assert lines[0] == "1 of 2 runs are finished already"
    assert not (runs[0].folder / "called.json").exists()
    assert "--resume" in _called(runs[1])["words"]


def test_time_of_all_calls_is_added(runs):
    runs[0].folder.mkdir(parents=True)
    runs[0].write_record(False, 1000.0)
    train_runs(runs[:1], 1, lambda line: None)
    assert 1000 < runs[0].record()["seconds"] < 1060


def test_runs_with_other_settings_are_not_mixed(runs, tmp_path):
    train_runs(runs, 2, lambda line: None)
    _plan(tmp_path)
    with pytest.raises(ConfigError, match=r"options is \['X.Y', '1'\] there and \['X.Y', '2'\]"):
        _plan(tmp_path, options={"X.Y": 2})


def test_damaged_record_is_named(runs, tmp_path):
    runs[0].folder.mkdir(parents=True)
    for text in ("{", "[]"):
        (runs[0].folder / "run.json").write_text(text)
        with pytest.raises(DataError, match=r"run\.json.*Remove the folder"):
            _plan(tmp_path)


def test_folder_in_which_a_process_still_trains_is_left_alone(runs):
    runs[0].folder.mkdir(parents=True)
    with (runs[0].folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="still trains here"):
            train_runs(runs[:1], 1, lambda line: None)
    assert train_runs(runs[:1], 1, lambda line: None) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --spec, or --name, --config-file, --variant; missing: --config-file"),
        (["--spec", "x.yaml", "--name", "n"], "--spec: expected it alone, got --name"),
        (["--spec", "x.yaml", "--jobs", "0"], "--jobs: expected at least 1, got 0"),
        (["--spec", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_mistakes_of_the_command_line_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["grid", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def _write_spec(videos: Path, folder: Path) -> list[str]:
    words = tiny_options(videos, folder, "SOLVER.MAX_ITER", 20, "SOLVER.CHECKPOINT_PERIOD", 5)
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    options = {key: value for key, value in pairs.items() if key not in ("SEED", "OUTPUT_DIR")}
    content = {"name": "tiny", "config": CONFIG, "options": options, "seeds": [1, 2]}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**content, "variants": [{"name": "boxes"}]}))
    tool = str(ROOT / "tools" / "experiment.py")
    return [sys.executable, tool, "grid", "--spec", str(path), "--output", str(folder / "out")]


@pytest.mark.slow
def test_killed_grid_goes_on_where_it_was(tiny_videos, tmp_path):
    """End it with SIGTERM during the training; the same command finishes both runs."""
    command = _write_spec(tiny_videos, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = tmp_path / "out" / "runs" / "boxes" / "seed1"
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        assert wait_until(lambda: list(first.glob("model_*.pth")), limit=300)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 130
    record = json.loads((first / "run.json").read_text())
    assert record["finished"] is False
    assert record["seconds"] > 0

    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "| boxes | 2 | " in done.stdout
    assert "Starting training from iteration 0" in (first / "console.txt").read_text()
    started = (first / "console.txt").read_text().count("Starting training from iteration")
    assert started == 2
    for seed in (1, 2):
        lines = (tmp_path / f"out/runs/boxes/seed{seed}/metrics.json").read_text().splitlines()
        assert "segm/AP" in json.loads(lines[-1])

    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert "2 of 2 runs are finished already" in again.stderr
    assert again.stdout == done.stdout
