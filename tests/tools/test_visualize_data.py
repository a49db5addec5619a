"""tools/visualize_data.py draws a data set, or says what is wrong with it."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.videos import plain_content, unique_name, write_frames, write_json

TOOL = Path(__file__).parents[2] / "tools" / "visualize_data.py"
tool = runpy.run_path(str(TOOL))
main = tool["main"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """An annotation file with masks and its image root; a data set name for this test only."""
    monkeypatch.setitem(tool["choose_dataset"].__globals__, "DATASET_NAME", unique_name())
    content = plain_content(masks=True)
    return write_json(tmp_path, content), write_frames(tmp_path, content)


def test_tool_draws_clips_of_ones_own_json(files, tmp_path, capsys):
    output = tmp_path / "look.png"
    json_file, images = files
    assert main(["--json", json_file, "--images", images, "--output", str(output)]) == 0
    picture = np.asarray(Image.open(output))
    assert picture.ndim == 3
    assert picture.std() > 5
    assert "2 clips of 2 videos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Nothing to draw"),
        (["--json", "a.json"], "belong together"),
        (["--json", "absent.json", "--images", "frames"], "no such annotation file"),
        (["--dataset", "nothing_here"], "'nothing_here' is not registered"),
        (["INPUT.FOO", "1"], "INPUT.FOO"),
    ],
)
def test_tool_ends_with_one_message(files, tmp_path, capsys, arguments, text):
    with pytest.raises(SystemExit) as error:
        main(["--output", str(tmp_path / "look.png"), *arguments])
    assert error.value.code == 2
    assert text in capsys.readouterr().err
