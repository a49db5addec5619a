"""Reads untrusted JSON: files, and typed fields whose error messages name their place."""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from maskfreevis_ext.errors import DataError

#: Limits: bytes of a file, largest id, characters of a name or path.
MAX_JSON_BYTES = 2 << 30
MAX_ID = 2**53
MAX_NAME = 1024
#: Characters that XML or lines of text cannot hold.
UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")

_REPR = reprlib.Repr()  # shortens values; safe with huge or deeply nested ones
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
_REPR.maxlist = _REPR.maxdict = 5
_REPR.maxlevel = 3


def short(value: Any) -> str:
    """A value as text for a message, cut to a few dozen characters."""
    return _REPR.repr(value)


class _DuplicateKey(ValueError):
    pass


def _object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _DuplicateKey(f"an object has the key {key!r} twice")
    return content


def read_json_value(json_file: str, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file in UTF-8 (with or without byte order mark), UTF-16 or UTF-32.

    Args:
        json_file: Path.
        max_bytes: Largest file that is read.

    Returns:
        Its value, mostly an object or a list. The content is not checked.

    Raises:
        DataError: The file is absent, too large, or not JSON with unique keys.
    """
    try:
        size = os.stat(json_file).st_size
        if size > max_bytes:
            raise DataError(
                f"{json_file}: expected at most {max_bytes} bytes, got {size}. Split the data set."
            )
        with open(json_file, "rb") as file:
            data = file.read()
        if data[:64].lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
            raise DataError(
                f"{json_file}: expected JSON, got XML or HTML. An export of CVAT is converted by"
                f" python tools/convert_dataset.py --from cvat --input {json_file} --to ytvis"
                " --output OUT.json"
            )
        return json.loads(data, object_pairs_hook=_object_of_unique_keys)
    except FileNotFoundError:
        raise DataError(
            f"{json_file}: there is no such annotation file. Check the path; built-in data sets"
            " lie under the folder named by the environment variable DETECTRON2_DATASETS (default"
            " 'datasets')."
        ) from None
    except OSError as error:
        raise DataError(f"{json_file}: cannot be read ({error.strerror or error}).") from error
    except RecursionError:
        raise DataError(f"{json_file}: brackets are nested too deeply.") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{json_file}: expected valid JSON, got: {error}. Write it again."
        ) from None


def read_json(json_file: str, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read an annotation file, which must be one JSON object.

    Args:
        json_file: Path.
        max_bytes: Largest file that is read.

    Returns:
        The object. Its content is not checked.

    Raises:
        DataError: The file is absent, too large, or not a JSON object with unique keys.
    """
    content = read_json_value(json_file, max_bytes)
    if not isinstance(content, dict):
        raise DataError(
            f"{json_file}: expected one JSON object with 'videos', 'categories' and 'annotations',"
            f" got {type(content).__name__}. See datasets/README.md; lists, as Label Studio and"
            " BDD100K have them, are converted by tools/convert_dataset.py."
        )
    return content


class Entry:
    """An object of the JSON, with its place in the file for messages and typed access.

    Attributes:
        json_file: Path of the file.
        place: Where the object is in the file, such as "videos[3]".
        content: The object, unchecked.
    """

    def __init__(self, json_file: str, place: str, content: Any) -> None:
        """Keep the object.

        Raises:
            DataError: ``content`` is not an object.
        """
        self.json_file, self.place, self.content = json_file, place, content
        if not isinstance(content, dict):
            raise DataError(f"{json_file}: {place} must be an object, got {short(content)}.")

    def name(self, field: str) -> str:
        """File, place, id and field: the start of a message about the field."""
        entry_id = self.content.get("id")
        known = f" (id {short(entry_id)})" if type(entry_id) is int else ""
        return f"{self.json_file}: {self.place}{known}.{field}"

    def fail(self, field: str, expected: str, remedy: str = "") -> DataError:
        """Make an error about a field, for the caller to raise.

        Args:
            field: Name, with indices where the value is in a list: "bboxes[3]".
            expected: What the field must be, after "must be".
            remedy: A sentence that says how to fix it.
        """
        root = field.split("[")[0]
        got = "nothing" if root not in self.content else short(self._value(field))
        return DataError(f"{self.name(field)} must be {expected}, got {got}. {remedy}".rstrip())

    def _value(self, field: str) -> Any:
        value = self.content
        for key in re.findall(r"[^\[\]]+", field):
            value = value[int(key)] if isinstance(value, list) else value[key]
        return value

    def integer(self, field: str, low: int, high: int) -> int:
        """Read an integer field.

        Raises:
            DataError: It is absent, no integer, or not in [low, high].
        """
        value = self.content.get(field)
        if type(value) is not int or not low <= value <= high:
            raise self.fail(field, f"an integer in {low}..{high}")
        return value

    def text(self, field: str) -> str:
        """Read a string field.

        Raises:
            DataError: It is absent, no string, empty, longer than ``MAX_NAME`` characters, or has
                control characters.
        """
        value = self.content.get(field)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
            raise self.fail(field, f"a string of 1 to {MAX_NAME} characters")
        if UNWRITABLE.search(value):
            raise self.fail(field, "text without control characters")
        return value


def list_of(json_file: str, content: Mapping[str, Any], field: str) -> list[Entry]:
    """Read a field of the file that must be a list of objects.

    Args:
        json_file: Path, for messages.
        content: The file's object.
        field: Name of the field.

    Raises:
        DataError: The field is absent or no list, or an element is not an object.
    """
    entries = content.get(field)
    if not isinstance(entries, list):
        got = "nothing" if field not in content else short(entries)
        raise DataError(f"{json_file}: '{field}' must be a list, got {got}.")
    return [Entry(json_file, f"{field}[{i}]", entry) for i, entry in enumerate(entries)]


def unique_id(entry: Entry, seen: Mapping[int, Any]) -> int:
    """Read the id of an entry.

    Args:
        entry: The entry.
        seen: A mapping whose keys are the ids in use.

    Raises:
        DataError: The id is not an integer in [0, ``MAX_ID``], or is in use.
    """
    entry_id = entry.integer("id", 0, MAX_ID)
    if entry_id in seen:
        raise entry.fail("id", "unique", "Give every entry its own id.")
    return entry_id


def path_fault(name: Any) -> str | None:
    """What is wrong with a path that must stay under a folder, or None.

    Args:
        name: The path, with "/" or backslashes; unchecked.

    Returns:
        What it must be, after "must be"; None if it is that.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        return f"a path of 1 to {MAX_NAME} characters"
    parts = re.split(r"[/\\]", name)
    is_inside = ".." not in parts and parts[0] != "" and not re.match(r"[A-Za-z]:", name)
    if UNWRITABLE.search(name):
        return "a path without control characters"
    if not is_inside:
        return "a path that stays under the image root (absolute paths and '..' are refused)"
    return None
