"""One run per OUTPUT_DIR, which writes over nothing but the files of runs."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys

import pytest

from maskfreevis_ext.checkpoint_manifest import Manifest
from maskfreevis_ext.config import load_config
from maskfreevis_ext.engine.output_folder import (
    LOCK_FILE,
    check_output_folder,
    lock_output,
    unlock_output,
)
from maskfreevis_ext.errors import ConfigError
from tests.helpers.training import CONFIG
from tests.helpers.videos import unique_name

# A process of another run, which ends without giving the lock back.
OTHER = """
import sys
from maskfreevis_ext.engine.output_folder import lock_output
from maskfreevis_ext.errors import ConfigError
try:
    lock_output(sys.argv[1])
    print("locked")
except ConfigError as error:
    print(error)
"""


def _other(folder) -> str:
    command = [sys.executable, "-c", OTHER, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
def test_other_process_is_refused_until_the_lock_is_given_up(tmp_path):
    lock_output(str(tmp_path))
    lock_output(str(tmp_path))  # again in the same process
    said = _other(tmp_path)
    assert said.startswith(f"OUTPUT_DIR: another run works in '{tmp_path}' (process {os.getpid()}")
    unlock_output(str(tmp_path))
    assert _other(tmp_path) == "locked\n"
    lock_output(str(tmp_path))  # the other process has ended
    unlock_output(str(tmp_path))


def test_lock_of_another_is_refused_whatever_the_file_says(tmp_path, monkeypatch):
    def busy(file, how):
        raise OSError(errno.EAGAIN, "busy")

    (tmp_path / LOCK_FILE).write_text("no JSON")
    monkeypatch.setattr(fcntl, "lockf", busy)
    with pytest.raises(ConfigError, match=r"OUTPUT_DIR: another run works .*an unknown process"):
        lock_output(str(tmp_path))


def test_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def unable(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unable)
    with caplog.at_level(logging.WARNING):
        lock_output(str(tmp_path))
    assert "does not lock files (No locks available)" in caplog.text


def test_folder_that_cannot_be_written_to_is_one_line():
    with pytest.raises(ConfigError, match=r"OUTPUT_DIR: expected a folder to write to, got '/sys'"):
        lock_output("/sys")


class Run:
    """A command that trains or evaluates in a folder, and its inputs elsewhere.

    Args:
        folder: OUTPUT_DIR and the other files are in it.
    """

    def __init__(self, folder):
        self.output = folder / "run"
        self.output.mkdir()
        self.base, self.config, self.json, self.weights = (
            folder / name for name in ("base.yaml", "my.yaml", "train.json", "w.pth")
        )
        self.name = unique_name()

    def write(self) -> None:
        """Write the inputs that are not there yet."""
        self.base.write_text(f"_BASE_: {CONFIG}\n")
        self.config.write_text(f"_BASE_: {self.base}\n")
        for path in (self.json, self.weights):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"[]")

    def check(self, *, training: bool = True, resume: bool = False, **keys: object) -> None:
        """What the command does first."""
        words = {
            "OUTPUT_DIR": self.output,
            "MODEL.DEVICE": "cpu",
            "MODEL.WEIGHTS": self.weights,
            "INPUT.DATASETS": [[self.name, str(self.json), "frames"]],
            **keys,
        }
        pairs = [str(word) for pair in words.items() for word in pair]
        cfg = load_config(str(self.config), pairs)
        check_output_folder(cfg, str(self.config), training=training, resume=resume)


@pytest.fixture
def run(tmp_path) -> Run:
    """A run in a folder with the log of an earlier one."""
    run = Run(tmp_path)
    (run.output / "log.txt").touch()
    return run


class TestRunFolder:
    """What a run reads and what is not of a run stays as it is."""

    def test_inputs_that_a_run_does_not_write_may_lie_there(self, run):
        run.json, run.weights = run.output / "train.json", run.output / "pretrained.pth"
        run.base, run.config = run.output / "base.yaml", run.output / "my.yaml"
        run.write()
        run.check()
        run.check(training=False)

    @pytest.mark.parametrize("name", ["model_final", "model_best", "model_0000099"])
    def test_weights_are_not_trained_over(self, run, name):
        run.weights = run.output / f"{name}.pth"
        run.write()
        expected = rf"OUTPUT_DIR '{run.output}': this run reads {run.weights}, .* add --resume"
        with pytest.raises(ConfigError, match=expected):
            run.check()
        run.check(training=False)  # an evaluation writes no weights
        if name == "model_best":  # which no training goes on from
            with pytest.raises(ConfigError, match="this run reads"):
                run.check(resume=True)
            (run.output / "model_0000001.pth").touch()
        run.check(resume=True)

    @pytest.mark.parametrize("way", ["link", "hard link"])
    def test_links_are_followed(self, run, tmp_path, way):
        run.write()
        checkpoint = run.output / "model_final.pth"
        if way == "link":
            run.weights.rename(checkpoint)
            run.weights.symlink_to(checkpoint)
        else:
            checkpoint.hardlink_to(run.weights)
        with pytest.raises(ConfigError, match=rf"this run reads {run.weights}"):
            run.check()

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("kind", ["config", "base", "link"])
    def test_config_files_are_not_written_over(self, run, kind, training):
        written = run.output / "config.yaml"
        if kind == "link":  # the run would write through it
            run.write()
            written.symlink_to(run.config)
        else:
            setattr(run, kind, written)
            run.write()
        with pytest.raises(
            ConfigError, match=r"this run reads .* \(config\.yaml\)\. Choose .* copy it"
        ):
            run.check(training=training)

    def test_config_of_the_run_itself_is_written_anew_as_it_is(self, run):
        run.write()
        pairs = ["OUTPUT_DIR", run.output, "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", run.weights]
        pairs += ["INPUT.DATASETS", [[run.name, str(run.json), "frames"]]]
        cfg = load_config(str(run.config), [str(word) for word in pairs])
        run.config = run.output / "config.yaml"
        run.config.write_text(cfg.dump())
        run.check(resume=True)
        with pytest.raises(ConfigError, match="this run reads"):
            run.check(**{"SOLVER.MAX_ITER": 7})

    @pytest.mark.parametrize("training", [True, False])
    def test_annotations_are_not_predicted_over(self, run, training):
        run.json = run.output / "inference" / "results.json"
        run.write()
        with pytest.raises(ConfigError, match=r"\(inference/results\.json\)"):
            run.check(training=training)

    @pytest.mark.parametrize(
        ("name", "by_training_only"),
        [
            ("config.yaml", False),
            ("inference/results.json", False),
            ("metrics.json", True),
            ("model_final.pth", True),
        ],
    )
    def test_files_of_a_folder_that_is_not_of_a_run_stay(self, run, name, by_training_only):
        run.write()
        path = run.output / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
        (run.output / "log.txt").unlink()
        with pytest.raises(ConfigError, match=rf"write over {path}, .* Choose another OUTPUT_DIR"):
            run.check()
        if by_training_only:
            run.check(training=False)

    def test_weights_that_no_training_saved_stay(self, run):
        run.write()
        (run.output / "model_0000099.pth").write_bytes(b"mine")
        with pytest.raises(ConfigError, match=r"write over .*model_0000099\.pth, and nothing says"):
            run.check()
        run.check(resume=True)
        Manifest(run.output).add("model_0000099.pth", "0" * 64, {})
        run.check()  # of an earlier training, as in Detectron2

    @pytest.mark.parametrize("name", ["config.yaml", "model_final.pth", "log.txt"])
    def test_folder_in_the_place_of_a_file_is_found_at_the_start(self, run, name):
        run.write()
        (run.output / "log.txt").unlink()
        (run.output / name).mkdir()
        with pytest.raises(ConfigError, match=rf"expected a file at {run.output / name}"):
            run.check()

    def test_file_in_the_place_of_the_predictions_is_found_at_the_start(self, run):
        run.write()
        (run.output / "inference").write_text("mine")
        with pytest.raises(ConfigError, match=r"expected a folder at .*inference"):
            run.check(training=False)

    def test_log_of_somebody_else_is_found_at_the_start(self, run, monkeypatch):
        run.write()
        real = os.access
        monkeypatch.setattr(
            os, "access", lambda path, how: real(path, how) and path.name != "log.txt"
        )
        with pytest.raises(ConfigError, match=r"log\.txt cannot be written to"):
            run.check()

    def test_name_that_the_logger_takes_for_a_file(self, run):
        run.write()
        with pytest.raises(ConfigError, match=r"OUTPUT_DIR: expected .* got 'out/run\.log'"):
            run.check(**{"OUTPUT_DIR": "out/run.log"})
