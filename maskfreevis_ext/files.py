"""Files that are complete or absent, never half written, and never in the place of a user's own.

A tool calls ``check_outputs`` before its work and ``mark_outputs`` after it. The marks (size and
time of the files that the tools wrote) stand in a hidden file of each output folder, so that a tool
can replace what it made, but neither a file of other origin nor one that was changed by hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import mimetypes
import os
import re
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from maskfreevis_ext.errors import DataError, NumericError

#: Beginning of the names of files that are still being written; nobody else gives such names.
_TEMPORARY = ".maskfreevis_ext-"
_UNFINISHED = re.compile(r"\.maskfreevis_ext-[0-9a-f]{16}\.(tmp|part\.mp4)")
#: Hidden file of an output folder: [size, time of change in ns] of what a tool wrote there.
MARKS_FILE = ".maskfreevis_ext.json"

AnyPath = str | os.PathLike[str]


@contextlib.contextmanager
def atomic_write(path: AnyPath) -> Iterator[IO[bytes]]:
    """Open a temporary binary file that replaces ``path`` when it is complete and on the disk.

    Args:
        path: The file to write. Its folder is created if absent.

    Yields:
        The open file. After an error inside the block, ``path`` is unchanged.

    Raises:
        OSError: The file cannot be written.
    """
    with temporary_file(path) as temporary:
        with open(temporary, "wb") as file:
            yield file
        move_into_place(temporary, path)


@contextlib.contextmanager
def temporary_file(path: AnyPath, ending: str = ".tmp") -> Iterator[str]:
    """Make an empty file of a new name in the folder of ``path``, and remove it at the end.

    It is locked until then, so that ``remove_unfinished`` tells it from what a killed process left.

    Args:
        path: The file that will be replaced. Its folder is created if absent.
        ending: ".tmp", or ".part.mp4" for programs that go by the name.

    Yields:
        Its path; ``move_into_place`` keeps the content.

    Raises:
        OSError: The file cannot be made.
    """
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            temporary = os.path.join(folder, f"{_TEMPORARY}{secrets.token_hex(8)}{ending}")
            lock = stack.enter_context(open(temporary, "xb"))
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(temporary):  # not removed by another process before it was locked
                break
        try:
            yield temporary
        finally:
            with contextlib.suppress(OSError):
                os.remove(temporary)


def remove_unfinished(folder: AnyPath, *, with_subfolders: bool = False) -> None:
    """Remove the unfinished files that killed processes left in a folder.

    Files of other names stay, and files that a process is at work on.

    Args:
        folder: The folder; it may be absent.
        with_subfolders: Look into all folders in it, too.
    """
    for parent, folders, names in os.walk(folder):
        for name in filter(_UNFINISHED.fullmatch, names):
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.remove(path)
        if not with_subfolders:
            folders.clear()


def move_into_place(temporary: AnyPath, path: AnyPath) -> None:
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


def write_json(content: Any, path: AnyPath, indent: int | None = None) -> None:
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


def write_report(report: dict[str, Any], path: AnyPath) -> None:
    """Write the results of a tool as JSON, with null for NaN and infinite numbers.

    Args:
        report: The results; any dict for ``json.dumps``.
        path: The file; an existing one is replaced at the end. Its folder is created if absent.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        write_json(finite_or_none(report), path, indent=2)
    except OSError as error:
        raise _unwritable(path, error) from error


def check_outputs(
    files: Iterable[AnyPath],
    inputs: Iterable[AnyPath] = (),
    *,
    folders: Iterable[AnyPath] = (),
    new_folders: Iterable[AnyPath] = (),
    overwrite: bool = False,
) -> None:
    """Check the outputs of a tool before its work: nothing of the user's is replaced.

    Unfinished files of killed processes are removed where the outputs will be.

    Args:
        files: The files that will be written.
        inputs: All files and folders that are read.
        folders: Folders that will be filled with files of any name.
        new_folders: The same, but they must be absent or empty, also with ``overwrite``: what they
            hold will be read as a whole.
        overwrite: Whether files of other origin may be replaced; inputs never are.

    Raises:
        DataError: An output is an input or stands twice, exists and was not made by a tool or was
            changed since (without ``overwrite``), or cannot be written; a new folder has files.
    """
    sources = _Sources(inputs)
    seen: set[str] = set()
    whole = [Path(path) for path in new_folders]
    wanted = [(Path(path), False) for path in files]
    wanted += [(path, True) for path in [*map(Path, folders), *whole]]
    for folder in dict.fromkeys(path if is_folder else path.parent for path, is_folder in wanted):
        remove_unfinished(folder)
    for path, is_folder in wanted:
        try:
            _check_place(path, is_folder, sources)
            if path in whole:
                _check_empty(path)
            elif path.exists():
                _check_origin(path, is_folder, sources, overwrite)
        except OSError as error:
            raise _unwritable(path, error) from error
        if os.path.realpath(path) in seen:
            raise DataError(f"{path}: two outputs would be written to this path.")
        seen.add(os.path.realpath(path))


def find_input(paths: Iterable[AnyPath], inputs: Iterable[AnyPath]) -> tuple[Path, Path] | None:
    """Find a path that is an input, by its name or by a link.

    Args:
        paths: What will be written or removed.
        inputs: All files and folders that are read.

    Returns:
        The first such path, and the input that it is; None if there is none.
    """
    sources = _Sources(inputs)
    for path in map(Path, paths):
        source = sources.find(path)
        if source is not None:
            return path, source
    return None


def mark_outputs(files: Iterable[AnyPath], folders: Iterable[AnyPath] = ()) -> None:
    """Remember that a tool wrote these files, so that it may replace them.

    Args:
        files: The files; those that are absent are left out. A folder stands for the names in it.
        folders: Folders that were filled with some of these files: what a tool made there earlier,
            and was not changed since, is removed.
    """
    by_folder: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in map(Path, files):
        if path.exists():
            by_folder[path.parent.resolve()].append(path)
    filled = {Path(folder).resolve() for folder in folders}
    for folder, paths in by_folder.items():
        new = {path.name: _mark_of(path) for path in paths}
        old = {
            name: mark
            for name, mark in _read_marks(folder).items()
            if name not in new and (folder / name).exists() and mark == _mark_of(folder / name)
        }
        # Outputs in a folder that takes no further file are refused the next time.
        with contextlib.suppress(OSError):
            if folder in filled:
                for name in old:
                    if (folder / name).is_file():
                        (folder / name).unlink()
                old = {}
            write_json(old | new, folder / MARKS_FILE)


class _Sources:
    """The inputs of a tool."""

    def __init__(self, paths: Iterable[AnyPath]) -> None:
        self._by_place: dict[object, Path] = {}
        self._folders: set[Path] = set()
        for path in map(Path, paths):
            self._by_place.update(dict.fromkeys(_places(path), path))
            if os.path.isdir(path):
                self._folders.add(Path(os.path.realpath(path)))

    def find(self, path: Path) -> Path | None:
        """The input that a path is, also by a link."""
        found = (self._by_place.get(place) for place in _places(path))
        return next(filter(None, found), None)

    def hold(self, path: Path) -> bool:
        """Whether a path lies in a folder that is an input."""
        return not self._folders.isdisjoint(Path(os.path.realpath(path)).parents)


def _places(path: Path) -> list[object]:
    """What two paths of one file have in common: the path without links, device and inode."""
    places: list[object] = [os.path.realpath(path)]
    with contextlib.suppress(OSError):
        status = os.stat(path)
        places.append((status.st_dev, status.st_ino))
    return places


def _check_place(path: Path, is_folder: bool, sources: _Sources) -> None:
    _refuse_input(path, sources)
    if path.exists() and not (path.is_dir() if is_folder else path.is_file()):
        kinds = (("a folder", path.is_dir()), ("a file", path.is_file()))
        got = next((name for name, is_it in kinds if is_it), "a device or a pipe")
        wanted = "a folder" if is_folder else "a file"
        raise DataError(f"{path}: cannot be written: expected {wanted}, but it is {got}.")
    _check_writable(path, is_folder)


def _refuse_input(path: Path, sources: _Sources) -> None:
    source = sources.find(path)
    if source is not None:
        name = "" if source == path else f" ({source})"
        raise DataError(f"{path}: is an input{name}; expected another path for the output.")


def _check_empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder}: expected a new or empty folder. Name another output.")


def _check_origin(path: Path, is_folder: bool, sources: _Sources, overwrite: bool) -> None:
    folder = path if is_folder else path.parent
    marks = _read_marks(folder)
    for file in sorted(folder.iterdir()) if is_folder else [path]:
        if is_folder:
            if file.name.startswith("."):
                continue
            _refuse_input(file, sources)
        is_own = file.name in marks and marks[file.name] == _mark_of(file)
        # What a tool made may have become a frame of a data set.
        if sources.hold(file) and (not is_own or (not is_folder and _is_picture(file))):
            raise DataError(f"{file}: lies in an input folder; expected another path.")
        if not is_own and not overwrite:
            raise DataError(
                f"{file}: exists, and was not made by this tool or was changed since. Choose"
                " another output, or add --overwrite."
            )


def _is_picture(path: Path) -> bool:
    return (mimetypes.guess_type(path.name, strict=False)[0] or "").startswith("image/")


def _check_writable(path: Path, is_folder: bool) -> None:
    """Try to create a file where the output will be, or where its folder would be made."""
    place = path.absolute()
    places = [place, *place.parents] if is_folder else place.parents
    folder = next(parent for parent in places if os.path.lexists(parent))
    if not folder.is_dir():
        got = "a file" if folder.exists() else "a link to nothing"
        raise DataError(f"{path}: cannot be written: {folder} is {got}, not a folder.")
    with tempfile.TemporaryFile(dir=folder):
        pass


def _mark_of(path: Path) -> list[int]:
    """Size and time of a file; of a folder, size and newest time of all that is in it."""
    states = [path.stat()]
    if path.is_dir():
        states += [one.lstat() for one in path.rglob("*")]
    return [sum(one.st_size for one in states), max(one.st_mtime_ns for one in states)]


def _read_marks(folder: Path) -> dict[str, Any]:
    """Marks of a folder's files; none where the file is absent or damaged."""
    try:
        marks = json.loads((folder / MARKS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marks if isinstance(marks, dict) else {}


def _unwritable(path: AnyPath, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be written: {error.strerror or error}.")


def finite_or_none(value: Any) -> Any:
    """A value for ``json.dumps`` with None for each NaN and infinity in it.

    Args:
        value: Dicts, lists and tuples of plain values.
    """
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
