"""docs/config.md."""

from __future__ import annotations

import runpy
import sys

import pytest

from maskfreevis_ext.config import registered_keys
from maskfreevis_ext.config.checks import integer
from maskfreevis_ext.config.keys import Key, unread
from maskfreevis_ext.config.reference import COMMAND, reference_page
from tests.helpers.training import ROOT

main = runpy.run_module("maskfreevis_ext.config", run_name="not as a command")["main"]


def test_page_is_current():
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == reference_page(), f"run: {COMMAND}"


def test_command_of_the_page_writes_it(tmp_path, monkeypatch):
    _, _, module, *words = COMMAND.split()
    monkeypatch.setattr(sys, "argv", [module, words[0], str(tmp_path / "config.md")])
    runpy.run_module(module, run_name="__main__")
    assert (tmp_path / "config.md").read_text(encoding="utf-8") == reference_page()


@pytest.mark.parametrize("text", ["mine", "# Config keys\n\nof another program", "\xff"])
def test_file_that_is_no_page_stays(tmp_path, capsys, text):
    path = tmp_path / "config.md"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(SystemExit) as end:
        main(["--output", str(path)])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"DataError: {path}: exists, and was not made by this tool")
    assert path.read_text(encoding="latin-1") == text
    main(["--output", str(path), "--overwrite"])
    path.write_text(f"{path.read_text(encoding='utf-8')}| of an earlier version |\n", "utf-8")
    main(["--output", str(path)])
    assert path.read_text(encoding="utf-8") == reference_page()


@pytest.mark.parametrize("path", ["/sys/config.md", "/dev/null/config.md", "/dev/null", "/"])
def test_page_that_cannot_be_written_is_one_line(path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--output", path])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"DataError: {path}: cannot be written: ")


def test_page_has_a_row_for_every_key():
    page = reference_page()
    for key in registered_keys():
        assert page.count(f"| `{key.name}` |") == 1, key.name


def test_row_says_default_allowed_and_meaning():
    page = reference_page([Key("A.B", 3, integer(1), "Number | of things."), unread("A.C", 0, "x")])
    assert "## A\n" in page
    assert "| `A.B` | `3` | an integer, at least 1 | Number \\| of things. |" in page
    assert "| `A.C` | `0` | x |" in page
