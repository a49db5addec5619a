"""Names in files cannot act on the terminal: neither in errors nor in lines of the log."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.engine.log_lines import VisibleText, clean_lines
from maskfreevis_ext.errors import CheckpointError, ConfigError, DataError, NumericError, visible
from maskfreevis_ext.inference.video_io import open_frames
from tests.helpers.videos import plain_content, write_json

_ACTING = {
    "escape": "\x1b[2J\x1b]0;title\x07",
    "return": "\rall is well",
    "backspace": "\x08\x08",
    "C1": "\x9b2J",
    "right to left": "\u202egnp.exe",
    "isolate": "\u2066a\u2069",
    "null": "\0",
    "surrogate": "\udc80",
}


@pytest.mark.parametrize("name", _ACTING)
def test_characters_are_written_as_python_writes_them(name):
    text = visible(f"a{_ACTING[name]}b")
    assert text.startswith("a")
    assert "\\" in text
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    assert text.isprintable()


def test_text_of_all_languages_line_breaks_and_tabs_stay():
    text = "Füße, собака, 犬, كلب, 🐕\n\tnext \\x1b"
    assert visible(text) == text


@pytest.mark.parametrize("kind", [ConfigError, DataError, CheckpointError, NumericError])
def test_errors_are_clean(kind):
    assert str(kind("a\x1b[31mb")) == "a\\x1b[31mb"


@pytest.mark.parametrize("place", ["class", "file"])
@pytest.mark.parametrize("text", ["cat\x1b[2J", "cat\nINFO: all is well", "cat\u2028x"])
def test_names_of_json_files_have_no_control_characters(tmp_path, place, text):
    content = plain_content()
    if place == "class":
        content["categories"][0]["name"] = text
    else:
        content["videos"][0]["file_names"][0] = text
    with pytest.raises(DataError, match="without control characters, got 'cat") as error:
        load_ytvis_json(write_json(tmp_path, content), str(tmp_path))
    assert str(error.value).isprintable()


def _line(text, *args, name="maskfreevis_ext.some"):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(VisibleText())
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        logger.warning(text, *args)
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


def test_lines_of_the_log_are_clean():
    assert _line("%s: %d boxes", "a\x1b[2J", 3) == "a\\x1b[2J: 3 boxes\n"
    assert _line("100 % of \r") == "100 % of \\r\n"


def test_colours_of_fvcore_stay():
    assert _line("\x1b[34mweight\x1b[0m \x1b[2J") == "\x1b[34mweight\x1b[0m \\x1b[2J\n"


def test_terminal_gets_no_debug_lines_and_the_file_does(tmp_path):
    script = (
        "import logging, sys; from detectron2.utils.logger import setup_logger;"
        "from maskfreevis_ext.engine.log_lines import clean_lines;"
        f"setup_logger({str(tmp_path)!r}, name='maskfreevis_ext'); clean_lines(); clean_lines();"
        "logger = logging.getLogger('maskfreevis_ext.data');"
        "logger.debug('Traceback %s', 'x'); logger.info('an\\x1bswer')"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import maskfreevis_ext;" + script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert "an\\x1bswer" in done.stdout
    text = (tmp_path / "log.txt").read_text()
    assert "Traceback x" in text
    assert "an\\x1bswer" in text


def test_command_prints_a_clean_line(tmp_path):
    path = tmp_path / "gt.json"
    path.write_text(json.dumps({"videos": 5, "a\x1b": 1, "categories": "\x1b[2J"}))
    done = subprocess.run(
        [sys.executable, "tools/evaluate.py", "--gt", str(path), "--results", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Error" in done.stderr
    assert "\x1b[2J" not in done.stdout + done.stderr


def test_clean_lines_without_handlers():
    clean_lines()


def test_names_of_inputs_are_clean(tmp_path):
    folder = tmp_path / "a\x1b[2Jb"
    folder.mkdir()
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(folder / "0.png")
    assert open_frames(folder).name == "a\\x1b[2Jb"
