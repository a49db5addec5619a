"""A JSON object of long lists, written entry by entry, so that none of them lies in memory."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

#: Bytes of a list that are kept in memory before a temporary file is used.
_MAX_IN_MEMORY = 64 << 20


class JsonLists:
    """The lists of a JSON object that is being written; see ``json_lists``."""

    def __init__(self, files: dict[str, IO[bytes]]) -> None:
        self._files = files
        self._counts = dict.fromkeys(files, 0)

    def append(self, name: str, entry: Any) -> None:
        """Add an entry to a list.

        Args:
            name: The list.
            entry: Any value for ``json.dumps``, with finite numbers.
        """
        text = json.dumps(entry, allow_nan=False)
        self._files[name].write((",\n" if self._counts[name] else "\n").encode() + text.encode())
        self._counts[name] += 1

    def count(self, name: str) -> int:
        """Entries of a list so far.

        Args:
            name: The list.
        """
        return self._counts[name]


@contextlib.contextmanager
def json_lists(path: str, names: Sequence[str], head: dict[str, Any]) -> Iterator[JsonLists]:
    """Write a JSON object of lists.

    Args:
        path: The file; written when the block ends without an error.
        names: Keys of the lists.
        head: Further keys and values, written first.

    Yields:
        The lists.
    """
    with contextlib.ExitStack() as stack:
        files: dict[str, IO[bytes]] = {
            name: stack.enter_context(tempfile.SpooledTemporaryFile(_MAX_IN_MEMORY))
            for name in names
        }
        yield JsonLists(files)
        with open(path, "wb") as output:
            output.write(b"{")
            for key, value in head.items():
                output.write(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)},\n".encode())
            for i, (name, file) in enumerate(files.items()):
                output.write(f"{',' if i else ''}\n{json.dumps(name)}: [".encode())
                file.seek(0)
                shutil.copyfileobj(file, output)
                output.write(b"]")
            output.write(b"}\n")
