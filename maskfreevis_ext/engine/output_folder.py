"""OUTPUT_DIR belongs to one run at a time, and what a run writes there replaces no other file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import socket
from pathlib import Path
from typing import IO

from detectron2.config import CfgNode

from maskfreevis_ext.checkpoint_manifest import Manifest
from maskfreevis_ext.config.yaml_check import read_plain_yaml
from maskfreevis_ext.engine.inputs import config_inputs
from maskfreevis_ext.engine.training_record import checkpoint_files
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.files import find_input

logger = logging.getLogger(__name__)

#: Hidden file of OUTPUT_DIR that a run locks; the process and its machine stand in it.
LOCK_FILE = ".maskfreevis_ext.lock"

#: Files that every run writes into OUTPUT_DIR, beside those in the folder ``inference``.
_OF_RUNS = re.compile(r"config\.yaml|log\.txt(\.rank\d+)?|report\.html|frame_headers\.json")
#: Files that a training writes.
_OF_TRAININGS = re.compile(
    r"model_(\d+|final|best)\.pth|last_checkpoint|checkpoints\.json|metrics\.json"
    r"|events\.out\.tfevents\..*|bad_batch_.*\.pt"
)
#: Those that are not replaced by new ones, but changed.
_IN_PLACE = ("config.yaml", "log.txt", "metrics.json")

#: The locks of this process, by folder, open until it ends.
_locks: dict[str, IO[str]] = {}


def lock_output(folder: str) -> None:
    """Make sure that no other run works in a folder, until this process ends.

    The lock is one of the operating system: it ends with the process, however that ends. Loader
    workers do not hold it. A second call in one process does nothing.

    Args:
        folder: OUTPUT_DIR, which exists.

    Raises:
        ConfigError: Another process has the lock, or the folder cannot be written to.
    """
    key = os.path.realpath(folder)
    if key in _locks:
        return
    path = os.path.join(folder, LOCK_FILE)
    try:
        file = open(path, "a+")
    except OSError as error:
        raise ConfigError(
            f"OUTPUT_DIR: expected a folder to write to, got {folder!r} ({error.strerror})."
        ) from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = _read_owner(file)
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise ConfigError(
                f"OUTPUT_DIR: another run works in {folder!r} ({owner}). Wait until it ends, or"
                " choose another OUTPUT_DIR."
            ) from None
        logger.warning(
            "%s: the file system does not lock files (%s). Take care that no other run writes to"
            " this folder.",
            folder,
            error.strerror,
        )
        return
    _locks[key] = file
    with contextlib.suppress(OSError):  # a full disk
        file.truncate(0)
        json.dump({"process": os.getpid(), "host": socket.gethostname()}, file, allow_nan=False)
        file.flush()


def unlock_output(folder: str) -> None:
    """Give up the lock of ``lock_output`` before the process ends; for programs with many runs."""
    file = _locks.pop(os.path.realpath(folder), None)
    if file is not None:
        file.close()


def check_output_folder(
    cfg: CfgNode, config_file: str | None, *, training: bool, resume: bool
) -> None:
    """Make sure that a run would write over none of its inputs and no file that no run made.

    Args:
        cfg: The config; its OUTPUT_DIR need not exist.
        config_file: The YAML file that it was read from.
        training: The run trains, so that it writes checkpoints.
        resume: It goes on from a checkpoint of OUTPUT_DIR if there is one.

    Raises:
        ConfigError: A file that the run writes is its config file, weights or annotations, or is
            there already and nothing says that a run made it.
        OSError: The folder cannot be read.
    """
    folder = Path(cfg.OUTPUT_DIR)
    if cfg.OUTPUT_DIR.endswith((".txt", ".log")):  # which Detectron2's logger takes for a file
        raise ConfigError(
            f"OUTPUT_DIR: expected a folder whose name does not end in .txt or .log, got"
            f" {cfg.OUTPUT_DIR!r}."
        )
    resume = resume and folder.is_dir() and bool(checkpoint_files(str(folder)))
    # With --resume, MODEL.WEIGHTS is not read.
    inputs = config_inputs(cfg, config_file, weights="" if resume else None)
    written = _written_files(folder, training)
    _check_kinds(folder, written)
    if _has_values(folder / "config.yaml", cfg.dump()):  # the run would not change it
        written.remove(folder / "config.yaml")
    found = find_input(written, inputs)
    if found is not None:
        path, source = found
        is_checkpoint = training and not resume and path.suffix == ".pth"
        raise ConfigError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR!r}: this run reads {source}, and would write over it"
            f" ({path.relative_to(folder)}). Choose another OUTPUT_DIR, or "
            + ("add --resume to go on with the training there." if is_checkpoint else "copy it.")
        )
    foreign = [] if resume else _foreign_files(folder, written)
    if foreign:
        raise ConfigError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR!r}: this run would write over {foreign[0]}, and nothing"
            " says that a run has made it. Choose another OUTPUT_DIR, or move the file away."
        )


def _written_files(folder: Path, training: bool) -> list[Path]:
    """The files of OUTPUT_DIR that a run may write over."""
    if not folder.is_dir():
        return []
    kinds = (_OF_RUNS, _OF_TRAININGS) if training else (_OF_RUNS,)
    paths = [path for path in folder.iterdir() if any(kind.fullmatch(path.name) for kind in kinds)]
    predictions = folder / "inference"
    return sorted(paths) + sorted(path for path in predictions.rglob("*") if path.is_file())


def _check_kinds(folder: Path, written: list[Path]) -> None:
    """Refuse what would end the run when it is written, perhaps after days.

    Raises:
        ConfigError: A folder has the name of a file or the reverse, or a file is somebody else's.
    """
    predictions = folder / "inference"
    wrong = [path for path in written if not path.is_file()]
    wrong += [predictions] if predictions.exists() and not predictions.is_dir() else []
    if wrong:
        wanted = "a folder" if wrong[0] == predictions else "a file"
        raise ConfigError(
            f"OUTPUT_DIR {str(folder)!r}: expected {wanted} at {wrong[0]}, got something else."
            " Choose another OUTPUT_DIR, or move it away."
        )
    for path in written:
        if path.name in _IN_PLACE and not os.access(path, os.W_OK):
            raise ConfigError(
                f"OUTPUT_DIR {str(folder)!r}: {path} cannot be written to (permissions). Choose"
                " another OUTPUT_DIR."
            )


def _foreign_files(folder: Path, written: list[Path]) -> list[Path]:
    """Those that no run has made: a run has a log, and a training lists its checkpoints."""
    if not (folder / "log.txt").exists():
        return [path for path in written if not path.name.startswith("log.txt")]
    listed = Manifest(folder).checkpoints
    return [path for path in written if path.suffix == ".pth" and path.name not in listed]


def _has_values(path: Path, dump: str) -> bool:
    """Whether a YAML file says the same as a text; aliases may be written out."""
    try:
        there = read_plain_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, ValueError, ConfigError):
        return False
    return there == read_plain_yaml(dump, "the config")


def _read_owner(file: IO[str]) -> str:
    file.seek(0)
    try:
        owner = json.load(file)
        return f"process {owner['process']:d} on {owner['host']!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"
