"""Logging to the terminal and to ``log.txt``."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
from typing import TextIO

from detectron2.utils.file_io import PathManager
from termcolor import colored

_DATE_FORMAT = "%m/%d %H:%M:%S"


class _ColorfulFormatter(logging.Formatter):
    """Shortens the name of the root module, and marks warnings and errors in red."""

    def __init__(self, root_name: str, abbrev_name: str) -> None:
        super().__init__(
            colored("[%(asctime)s %(name)s]: ", "green") + "%(message)s", datefmt=_DATE_FORMAT
        )
        self._root = root_name + "."
        self._short = abbrev_name + "." if abbrev_name else ""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.name = record.name.replace(self._root, self._short)
        line = super().formatMessage(record)
        if record.levelno == logging.WARNING:
            return colored("WARNING", "red", attrs=["blink"]) + " " + line
        if record.levelno in (logging.ERROR, logging.CRITICAL):
            return colored("ERROR", "red", attrs=["blink", "underline"]) + " " + line
        return line


@functools.lru_cache  # one set of handlers, however often somebody asks for it
def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    name: str = "detectron2",
    abbrev_name: str | None = None,
) -> logging.Logger:
    """Send the messages of a logger to stdout (rank 0 only) and to a file (every rank).

    Args:
        output: File ending in ``.txt`` or ``.log``, or a folder that gets a ``log.txt``. Rank r > 0
            appends ``.rank{r}`` to the file's name. None: no file.
        distributed_rank: Rank of this process.
        name: Name of the logger, a root module.
        abbrev_name: What the terminal shows instead of ``name``; ``d2`` for ``detectron2``.

    Returns:
        The logger, which passes every message from DEBUG upwards.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if abbrev_name is None:
        abbrev_name = "d2" if name == "detectron2" else name
    plain = logging.Formatter(
        "[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt=_DATE_FORMAT
    )
    if distributed_rank == 0:
        _add_handler(logger, sys.stdout, _ColorfulFormatter(name, abbrev_name))
    if output is not None:
        filename = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
        if distributed_rank > 0:
            filename += f".rank{distributed_rank}"
        PathManager.mkdirs(os.path.dirname(filename))
        _add_handler(logger, _open_log(filename), plain)
    return logger


def _add_handler(logger: logging.Logger, stream: TextIO, formatter: logging.Formatter) -> None:
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(formatter)
    logger.addHandler(handler)


@functools.cache  # loggers that share a file share its stream
def _open_log(filename: str) -> TextIO:
    stream = PathManager.open(filename, "a", buffering=-1 if "://" not in filename else 1 << 20)
    atexit.register(stream.close)
    return stream
