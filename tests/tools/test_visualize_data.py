"""tools/visualize_data.py draws a data set, or says what is wrong with it."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfreevis_ext.inference.video_io import open_frames
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


class TestReport:
    """Numbers on the terminal, a page, an mp4."""

    def test_page_and_video(self, files, tmp_path, capsys):
        json_file, images = files
        page, video = tmp_path / "look.html", tmp_path / "look.mp4"
        arguments = ["--json", json_file, "--images", images, "--html", str(page)]
        assert main([*arguments, "--output", str(video), "INPUT.MIN_SIZE_TRAIN", "(20,)"]) == 0
        text = capsys.readouterr().out
        assert "2 videos, 7 frames, 4 tracks, 12 boxes, 12 masks." in text
        assert "have a temporal match" in text
        assert "<svg" in page.read_text(encoding="utf-8")
        assert len(list(open_frames(video))) == 6  # two clips of three frames

    def test_frames_that_cannot_be_used_are_problems(self, files, tmp_path, capsys):
        json_file, images = files
        Path(images, "v1", "00002.png").write_text("text")
        page = str(tmp_path / "look.html")
        assert main(["--json", json_file, "--images", images, "--html", page]) == 0
        text = capsys.readouterr().out
        assert "Problem: " in text
        assert "00002.png (video 1, frame 2): it is no image" in text

    def test_without_any_good_video_the_faults_are_the_error(self, files, tmp_path, capsys):
        json_file, images = files
        for video in ("v1", "v2"):
            Path(images, video, "00002.png").write_text("text")
        with pytest.raises(SystemExit):
            main(["--json", json_file, "--images", images, "--html", str(tmp_path / "a.html")])
        assert "2 of 7 frames cannot be used" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [([], "Nothing to write"), (["--html", "a.txt"], "ends in .html")],
    )
    def test_outputs_that_cannot_be(self, tmp_path, monkeypatch, capsys, arguments, text):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit):
            main(arguments)
        assert text in capsys.readouterr().err

    def test_images_are_drawn_as_clips(self, files, tmp_path, capsys):
        _, images = files
        picture = {"id": 4, "file_name": "v1/00000.png", "height": 20, "width": 30}
        box = {"id": 1, "image_id": 4, "category_id": 3, "iscrowd": 0, "bbox": [2, 3, 8, 6]}
        content = {
            "images": [picture],
            "annotations": [{**box, "area": 48}],
            "categories": [{"id": 3, "name": "cat"}],
        }
        json_file = write_json(tmp_path, content, "coco.json")
        page = str(tmp_path / "look.html")
        arguments = ["--json", json_file, "--images", images, "--html", page]
        assert main([*arguments, "INPUT.PSEUDO.MIN_SIZE_TRAIN", "(40,)"]) == 0
        assert "1 clips of 1 videos drawn" in capsys.readouterr().out
