"""Writing of files that are either complete or absent, never half written."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from maskfreevis_ext.errors import DataError, NumericError

#: Ending of a file that is still being written.
TEMPORARY_SUFFIX = ".tmp"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary binary file that replaces ``path`` when it is complete and on the disk.

    Args:
        path: The file to write. Its folder is created if absent.

    Yields:
        The open file. After an error inside the block, ``path`` is unchanged.

    Raises:
        OSError: The file cannot be written.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = os.fspath(path) + TEMPORARY_SUFFIX
    try:
        with open(temporary, "wb") as file:
            yield file
        move_into_place(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def move_into_place(temporary: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Rename a complete temporary file to ``path`` after its content is on the disk.

    Args:
        temporary: The file, in the folder of ``path``.
        path: The new name; an existing file is replaced.

    Raises:
        OSError: The file cannot be moved.
    """
    with open(temporary, "rb+") as file:
        os.fsync(file)
    os.replace(temporary, path)
    # Without this, a power cut can undo the renaming. Some file systems do not offer it.
    with contextlib.suppress(OSError):
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[str]:
    """Make a temporary folder that becomes ``path`` when its content is complete.

    Args:
        path: A folder that does not exist, or is empty. Its parents are created if absent.

    Yields:
        The temporary folder, beside ``path``. It is removed after an error inside the block.

    Raises:
        DataError: There is a file or a folder with content at this path already.
        OSError: The folder cannot be made.
    """
    target = os.path.abspath(path)
    check_new_folder(target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    temporary = tempfile.mkdtemp(TEMPORARY_SUFFIX, os.path.basename(target), os.path.dirname(target))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        check_new_folder(target)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_new_folder(path: str | os.PathLike[str]) -> None:
    """Check that a folder can be written without replacing anything.

    Args:
        path: The folder to write.

    Raises:
        DataError: There is a file or a folder with content at this path already.
    """
    if os.path.isdir(path) and not os.listdir(path):
        return
    if os.path.lexists(path):
        raise DataError(f"{path}: expected a new or an empty folder; nothing is overwritten.")


def _umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(content: Any, path: str | os.PathLike[str], indent: int | None = None) -> None:
    """Write strict JSON by ``atomic_write``.

    Args:
        content: Any value for ``json.dumps`` without NaN and infinities, which JSON does not have.
        path: The file; an existing one is replaced at the end. Its folder is created if absent.
        indent: As in ``json.dumps``; with it the file ends with a newline.

    Raises:
        NumericError: The content has a NaN or an infinity.
        OSError: The file cannot be written.
    """
    try:
        text = json.dumps(content, indent=indent, allow_nan=False)
    except ValueError as error:
        raise NumericError(f"{path}: expected finite numbers in JSON: {error}.") from error
    with atomic_write(path) as file:
        file.write((text if indent is None else f"{text}\n").encode())


def write_report(report: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the results of a tool as JSON, with null for NaN and infinite numbers.

    Args:
        report: The results; any dict for ``json.dumps``.
        path: The file, in a folder that exists; an existing file is replaced at the end.

    Raises:
        DataError: The file cannot be written.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise DataError(f"{path}: cannot be written: there is no folder {folder}. Make it first.")
    try:
        write_json(_finite_or_none(report), path, indent=2)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_none(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
