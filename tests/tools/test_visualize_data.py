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


class TestOutput:
    """Checked before anything is read."""

    def refuse(self, capsys, *arguments: str) -> str:
        with pytest.raises(SystemExit) as error:
            main([*arguments, "--json", "absent.json", "--images", "absent"])
        assert error.value.code == 2
        return capsys.readouterr().err

    def test_file_of_other_origin_stays(self, tmp_path, capsys):
        path = tmp_path / "look.png"
        path.write_bytes(b"mine")

        assert "look.png: exists" in self.refuse(capsys, "--output", str(path))
        assert "absent.json" in self.refuse(capsys, "--output", str(path), "--overwrite")
        assert path.read_bytes() == b"mine"

    @pytest.mark.parametrize("name", ["look.xyz", "look"])
    def test_name_that_is_no_picture(self, tmp_path, capsys, name):
        assert "ends in .png" in self.refuse(capsys, "--output", str(tmp_path / name))

    def test_folder_that_cannot_be_made(self, capsys):
        assert "cannot be written" in self.refuse(capsys, "--output", "/sys/new/look.png")

    def test_annotations_are_not_drawn_over(self, files, tmp_path, capsys):
        json_file, images = files
        with pytest.raises(SystemExit):
            main(["--json", json_file, "--images", images, "--output", json_file, "--overwrite"])
        assert "is an input" in capsys.readouterr().err


def test_picture_is_drawn_into_a_new_folder_and_again(files, tmp_path):
    json_file, images = files
    arguments = ["--json", json_file, "--images", images, "--clips", "1"]
    for _ in range(2):
        assert main([*arguments, "--output", str(tmp_path / "new" / "look.png")]) == 0
