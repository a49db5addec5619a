"""The command line of tools/convert_dataset.py: exit codes, messages, video files."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.videos import plain_content, write_json

TOOL = Path(__file__).parents[2] / "tools" / "convert_dataset.py"
main = runpy.run_path(str(TOOL))["main"]


def _args(source, *more, name="ytvis"):
    return ["--from", name, "--input", str(source), *more]


def test_tool_converts_and_says_what_it_wrote(tmp_path, capsys):
    source = write_json(tmp_path, plain_content(masks=True))
    out = str(tmp_path / "out.csv")
    assert main(_args(source, "--to", "csv", "--output", out)) == 0
    printed = capsys.readouterr().out
    assert f"{out}: 2 videos, 7 frames, 4 tracks, 12 boxes, 12 masks" in printed
    assert "12 masks, which this format does not hold" in printed


def test_broken_input_ends_with_one_message_and_no_output(tmp_path, capsys):
    source = write_json(tmp_path, plain_content())
    Path(source).write_text(Path(source).read_text()[:200])
    with pytest.raises(SystemExit) as stop:
        main(_args(source, "--to", "csv", "--output", str(tmp_path / "out.csv")))
    assert stop.value.code == 2
    assert "DataError: " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["instances.json"]


def test_check_reports_every_problem_and_gives_2(tmp_path, capsys):
    content = plain_content((2, 2, 2))
    for index in (0, 4):
        content["annotations"][index]["bboxes"][0] = [0, 0, -1, 1]
    assert main(_args(write_json(tmp_path, content), "--check")) == 2
    printed = capsys.readouterr().out
    assert printed.count("problem: ") == 2
    assert "2 problems in 3 videos." in printed
    assert main(_args(write_json(tmp_path, plain_content()), "--check")) == 0


def test_options_that_miss_something_are_explained(tmp_path, capsys):
    source = write_json(tmp_path, plain_content())
    for options, message in (
        ([], "expected --to and --output, or --check"),
        (["--check", "--video", "a.mp4"], "--video needs --images"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(_args(source, *options))
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_video_file_is_cut_into_the_frames_of_the_annotations(tmp_path, capsys):
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for t in range(3):
        writer.write(np.full((24, 32, 3), 60 * t, np.uint8))
    writer.release()
    (tmp_path / "a.csv").write_text("video,frame,id,class,x,y,w,h\nwalk,1,5,cat,1,2,3,4\n")
    images, out = str(tmp_path / "frames"), tmp_path / "out.json"
    arguments = ["--images", images, "--to", "ytvis", "--output", str(out)]
    assert main(_args(tmp_path / "a.csv", "--video", str(path), *arguments, name="csv")) == 0
    video = json.loads(out.read_text())["videos"][0]
    assert video["file_names"] == [f"walk/{t:05d}.jpg" for t in range(3)]
    assert (video["width"], video["height"]) == (32, 24)
    with pytest.raises(SystemExit):  # the frames are there: nothing is mixed
        main(_args(tmp_path / "a.csv", "--video", str(path), *arguments, name="csv"))
    assert "has files already" in capsys.readouterr().err
