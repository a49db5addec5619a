"""Files that are whole or absent, and strict JSON."""

from __future__ import annotations

import json
import math

import pytest

from maskfreevis_ext.errors import DataError, NumericError
from maskfreevis_ext.files import atomic_write, write_json, write_report


def test_atomic_write_replaces_whole_files_only(tmp_path):
    path = tmp_path / "folder" / "a"
    with atomic_write(path) as file:
        file.write(b"old")

    def stop() -> None:
        with atomic_write(str(path)) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        stop()
    assert path.read_bytes() == b"old"
    assert [item.name for item in path.parent.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("content", "error"), [([object()], TypeError), ([math.nan], NumericError)]
)
def test_content_that_json_cannot_hold_leaves_the_old_file(tmp_path, content, error):
    path = tmp_path / "results.json"
    write_json([], path)

    with pytest.raises(error):
        write_json(content, path)

    assert json.loads(path.read_text()) == []
    assert [item.name for item in tmp_path.iterdir()] == ["results.json"]


def test_report_holds_null_for_what_is_not_finite(tmp_path):
    path = tmp_path / "report.json"

    write_report({"a": math.nan, "b": [1.5, -math.inf, {"c": (2, math.nan)}]}, path)

    text = path.read_text()
    assert json.loads(text) == {"a": None, "b": [1.5, None, {"c": [2, None]}]}
    assert text.endswith("}\n")


def test_report_is_not_written_into_an_absent_folder(tmp_path):
    with pytest.raises(DataError, match=r"r\.json: cannot be written: there is no folder"):
        write_report({}, tmp_path / "absent" / "r.json")
