"""``checkpoints.json``: what trainings saved in a folder, and the checksum of each file.

The manifest is written before a new checkpoint takes its name, and keeps the checksums of the file
that it replaces: a process that is killed in between leaves a file that the manifest knows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from maskfreevis_ext.errors import CheckpointError
from maskfreevis_ext.files import write_json

logger = logging.getLogger(__name__)

MANIFEST_NAME = "checkpoints.json"
_FORMAT = 1
_BLOCK = 1 << 20  # bytes that are read at once
_MOST_EARLIER = 4  # checksums of replaced files that are kept


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in 64 hexadecimal digits.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class Manifest:
    """The manifest of a folder.

    Args:
        folder: OUTPUT_DIR. A manifest that is absent or cannot be used counts as empty.

    Attributes:
        runs: Config, versions and class names of each training, by its id.
        checkpoints: ``sha256``, ``run``, ``iteration`` and ``saved`` of each file, by its name, in
            the order in which they were saved.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self.runs: dict[str, Any] = {}
        self.checkpoints: dict[str, dict[str, Any]] = {}
        content = _read(os.path.join(self.folder, MANIFEST_NAME))
        if content:
            self.runs, self.checkpoints = dict(content["runs"]), dict(content["checkpoints"])

    def add(self, name: str, sha256: str, facts: Mapping[str, Any]) -> None:
        """Add a checkpoint that is about to get its name, and write the manifest.

        Args:
            name: Its file name.
            sha256: Of the new file.
            facts: Plain values, such as ``run`` and ``iteration``.

        Raises:
            NumericError: The facts have a NaN or an infinity.
            OSError: The manifest cannot be written.
        """
        old, path = self.checkpoints.pop(name, None), os.path.join(self.folder, name)
        entry = {"sha256": sha256, **facts}
        if os.path.exists(path):
            known = [file_sha256(path)] if old is None else _checksums(old)
            entry["earlier"] = known[:_MOST_EARLIER]
        self.checkpoints[name] = entry
        self.write(keep=name)

    def write(self, keep: str = "") -> None:
        """Write the manifest, without files that are gone and trainings that left none.

        Args:
            keep: A file that need not exist yet.

        Raises:
            OSError: It cannot be written.
        """
        self.checkpoints = {
            name: entry
            for name, entry in self.checkpoints.items()
            if name == keep or os.path.exists(os.path.join(self.folder, name))
        }
        used = {entry.get("run") for entry in self.checkpoints.values()}
        self.runs = {run: facts for run, facts in self.runs.items() if run in used}
        content = {"format": _FORMAT, "runs": self.runs, "checkpoints": self.checkpoints}
        write_json(content, os.path.join(self.folder, MANIFEST_NAME), indent=2)


def forget(path: str | os.PathLike[str]) -> None:
    """Take a file out of the manifest of its folder, before something else replaces it.

    Args:
        path: The file.

    Raises:
        OSError: The manifest cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    manifest = Manifest(folder)
    if manifest.checkpoints.pop(name, None) is not None:
        manifest.write()


def is_listed(path: str | os.PathLike[str]) -> bool:
    """Compare a file with the manifest of its folder.

    Args:
        path: The file.

    Returns:
        Whether the manifest has it, and the checksum is right.

    Raises:
        CheckpointError: The manifest has it with another checksum.
        OSError: The file cannot be read.
    """
    folder, name = os.path.split(os.path.abspath(path))
    entry = Manifest(folder).checkpoints.get(name)
    if entry is None:
        return False
    if file_sha256(path) in _checksums(entry):
        return True
    raise CheckpointError(
        f"Weights file {path} is damaged: its SHA-256 is not the one that was noted in"
        f" {MANIFEST_NAME} when it was saved. If you replaced the file yourself, give it another"
        " name."
    )


def _checksums(entry: Mapping[str, Any]) -> list[str]:
    """The checksum of an entry, then those of the files that it replaced."""
    earlier = entry.get("earlier")
    return [entry["sha256"], *(earlier if isinstance(earlier, list) else [])]


def _read(path: str) -> dict[str, Any] | None:
    """The content of a manifest; None where it is absent or of no use, which the log says."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s cannot be read and is not used: %s", path, error)
        return None
    if not _is_manifest(content):
        logger.warning("%s is not a manifest of this version, and is not used.", path)
        return None
    return content


def _is_manifest(content: object) -> bool:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return False
    runs, checkpoints = content.get("runs"), content.get("checkpoints")
    if not isinstance(runs, dict) or not isinstance(checkpoints, dict):
        return False
    entries = checkpoints.values()
    return all(isinstance(one, dict) and isinstance(one.get("sha256"), str) for one in entries)
