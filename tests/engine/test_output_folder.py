"""One run per OUTPUT_DIR."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys

import pytest

from maskfreevis_ext.engine.checkpoint import remove_unfinished
from maskfreevis_ext.engine.output_folder import LOCK_FILE, lock_output, unlock_output
from maskfreevis_ext.errors import ConfigError

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


def test_unfinished_files_are_removed_and_others_stay(tmp_path):
    unfinished = ["model_1.pth.tmp", "last_checkpoint.tmp", "inference/a/results.json.tmp"]
    unfinished.append("bad_batch_0000001.pt.tmp")
    for name in [*unfinished, "model_1.pth", "notes.tmp", "inference/results.json"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_unfinished(str(tmp_path))
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"model_1.pth", "notes.tmp", "inference/results.json"}
