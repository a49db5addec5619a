"""Files that readers share: text in UTF-8, numbers in it, folders of files, names of videos."""

from __future__ import annotations

import configparser
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from maskfreevis_ext.data.frame_files import check_inside, natural_key
from maskfreevis_ext.data.json_fields import path_fault, short
from maskfreevis_ext.errors import DataError

BACKSLASHES = "file names whose backslashes became '/'"
#: Largest text file that is read, bytes.
MAX_TEXT_BYTES = 2 << 30


def read_text(path: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a text file in UTF-8, with or without byte order mark.

    Args:
        path: The file.
        max_bytes: Largest file that is read.

    Returns:
        The text.

    Raises:
        DataError: The file is absent, too large, or not UTF-8.
    """
    try:
        size = os.stat(path).st_size
        if size > max_bytes:
            raise DataError(f"{path}: expected at most {max_bytes} bytes, got {size}.")
        with open(path, "rb") as file:
            return file.read().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file. Check the path.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected text in UTF-8, got byte {error.object[error.start]:#04x} at offset"
            f" {error.start}. Save the file as UTF-8."
        ) from None


def read_ini(path: str, section: str) -> dict[str, str]:
    """Read a section of an INI file.

    Args:
        path: The file.
        section: Its name.

    Returns:
        The values; the keys in lower case.

    Raises:
        DataError: The file cannot be read, is no INI file or has no such section.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(path))
        return dict(parser[section])
    except (configparser.Error, KeyError) as error:
        raise DataError(f"{path}: expected a section [{section}]: {error}.") from None


def whole_number(text: str, where: str, low: int = 0, high: int = 2**53) -> int:
    """Read an integer; "7.0" is one too, as several tools write it.

    Args:
        text: The text.
        where: Start of an error message, with the name of the field.
        low: Least value.
        high: Greatest value.

    Raises:
        DataError: The text is no integer in this range.
    """
    value = real_number(text, where)
    if value != int(value) or not low <= value <= high:
        raise DataError(f"{where} must be an integer in {low}..{high}, got {short(text)}.")
    return int(value)


def real_number(text: str, where: str) -> float:
    """Read a finite number.

    Args:
        text: The text.
        where: Start of an error message, with the name of the field.

    Raises:
        DataError: The text is none.
    """
    # float() also takes "1_000", "nan", "inf" and digits of other scripts.
    if re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text, re.ASCII):
        value = float(text)
        if abs(value) < float("inf"):
            return value
    raise DataError(f"{where} must be a finite number, got {short(text)}.")


def list_files(folder: str, suffixes: str | Sequence[str], root: str | None = None) -> list[str]:
    """Names of the files of a folder with one of some endings, in natural order.

    Args:
        folder: The folder.
        suffixes: Endings, in lower case; the case of files is ignored.
        root: The folder that a link must not leave; None: ``folder``.

    Returns:
        Names, without the folder; perhaps none.

    Raises:
        DataError: The folder cannot be read, a name is not valid Unicode, or a file is a link that
            leads out of ``root``.
    """
    endings = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    found = [
        entry
        for entry in _scan(folder)
        if entry.name.lower().endswith(endings)
        and not entry.name.startswith(".")
        and entry.is_file()
    ]
    for entry in found:
        if entry.is_symlink():
            check_inside(entry.path, root or folder, entry.path)
    return sorted((entry.name for entry in found), key=natural_key)


def list_folders(folder: str) -> list[str]:
    """Names of the folders in a folder, in natural order.

    Args:
        folder: The folder.

    Raises:
        DataError: The folder cannot be read, or a name is not valid Unicode.
    """
    names = (e.name for e in _scan(folder) if e.is_dir() and not e.name.startswith("."))
    return sorted(names, key=natural_key)


def walk_folders(root: str, suffixes: str | Sequence[str]) -> list[tuple[str, list[str]]]:
    """Folders under a folder, itself included, that hold files with one of some endings.

    Args:
        root: The folder.
        suffixes: Endings, in lower case.

    Returns:
        For each its path relative to ``root`` with "/" ("" for itself), and the names of the files.

    Raises:
        DataError: A folder cannot be read, a name is not valid Unicode, or a file is a link that
            leads out of ``root``.
    """
    found = []
    waiting = [""]
    while waiting:
        relative = waiting.pop()
        folder = os.path.join(root, relative)
        names = list_files(folder, suffixes, root)
        if names:
            found.append((relative, names))
        inner = [f"{relative}/{name}" if relative else name for name in list_folders(folder)]
        waiting.extend(reversed([path for path in inner if not _is_link(root, path)]))
    return found


def files_of(path: str, suffix: str, kind: str) -> list[str]:
    """A file itself, or all files with an ending that are somewhere in a folder.

    Args:
        path: File or folder.
        suffix: The ending, in lower case.
        kind: What the files should be, for the message.

    Returns:
        Paths, in natural order.

    Raises:
        DataError: A folder cannot be read, or there is no such file in it.
    """
    if not os.path.isdir(path):
        return [path]
    found = [
        os.path.join(path, folder, name)
        for folder, names in walk_folders(path, suffix)
        for name in names
    ]
    if not found:
        raise DataError(f"{path}: expected {kind}, but there is none.")
    return found


def _is_link(root: str, relative: str) -> bool:
    return os.path.islink(os.path.join(root, relative))  # a link upwards would never end


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except FileNotFoundError:
        raise DataError(f"{folder}: there is no such folder. Check the path.") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror or error}).") from error
    for entry in found:
        try:
            entry.name.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(
                f"{folder}: the file name {entry.name!r} is not valid UTF-8. Rename the file."
            ) from None
    return found


def video_name(text: str, default: str = "video") -> str:
    """A name that can be a folder, from the title of a task or the path of a video file.

    Args:
        text: The text.
        default: The name where nothing usable is left.
    """
    clean = re.sub(r'[\x00-\x1f\\:*?"<>|\ud800-\udfff]|\.\.', "_", text[:200]).strip(" /.")
    return default if path_fault(clean) else clean


def with_slashes(name: str, notes: Counter[str]) -> str:
    """A path with "/" for backslashes, which are counted.

    Args:
        name: The path.
        notes: Counts the paths that change.
    """
    notes[BACKSLASHES] += "\\" in name
    return name.replace("\\", "/")


def unique_names(names: Iterable[str]) -> list[str]:
    """The names, with "_2", "_3", ... after those that occur before.

    Args:
        names: Any names.
    """
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        result.append(candidate)
    return result
