"""OUTPUT_DIR belongs to one run at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
from typing import IO

from maskfreevis_ext.errors import ConfigError

logger = logging.getLogger(__name__)

#: Hidden file of OUTPUT_DIR that a run locks; the process and its machine stand in it.
LOCK_FILE = ".maskfreevis_ext.lock"

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


def _read_owner(file: IO[str]) -> str:
    file.seek(0)
    try:
        owner = json.load(file)
        return f"process {owner['process']:d} on {owner['host']!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"
