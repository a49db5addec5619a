"""The command line of tools/make_synthetic.py."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "make_synthetic.py"
main = runpy.run_path(str(TOOL))["main"]


def refuse(capsys, *arguments: str) -> str:
    """The message with which the tool ends."""
    with pytest.raises(SystemExit) as stop:
        main([*arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_tool_writes_what_the_options_say(tmp_path, capsys):
    options = "--num-train 2 --num-val 1 --frames 3 --size 48x64 --objects 2-2 --seed 5"
    main(["--output", str(tmp_path), *options.split(), "--format", "png", "--train-masks"])
    assert str(tmp_path / "train.json") in capsys.readouterr().out
    content = json.loads((tmp_path / "train.json").read_text())
    assert [(v["height"], v["width"], v["length"]) for v in content["videos"]] == [(48, 64, 3)] * 2
    assert content["videos"][0]["file_names"][0].endswith(".png")
    assert (tmp_path / "instances_train_masks.json").exists()
    assert len(list((tmp_path / "val" / "JPEGImages").rglob("*.png"))) == 3


@pytest.mark.parametrize(
    "option", [["--size", "48"], ["--objects", "3"], ["--format", "gif"], ["--level", "4"]]
)
def test_tool_explains_a_malformed_option(tmp_path, option, capsys):
    assert option[1] in refuse(capsys, "--output", str(tmp_path), *option)


def test_tool_refuses_impossible_numbers(tmp_path, capsys):
    assert "num_frames" in refuse(capsys, "--output", str(tmp_path), "--frames", "0")


def test_tool_writes_a_level(tmp_path, capsys):
    options = "--num-train 1 --num-val 1 --frames 2 --size 48x64 --level 1"
    main(["--output", str(tmp_path), *options.split()])
    assert json.loads((tmp_path / "val.json").read_text())["info"]["level"] == 1


def test_tool_names_the_extra_that_a_level_needs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = refuse(capsys, "--output", str(tmp_path / "data"), "--level", "3")
    assert "maskfreevis_ext[synthetic]" in said


def test_own_data_set_is_written_anew_but_no_other(tmp_path, capsys):
    options = ["--output", str(tmp_path), "--num-train", "1", "--num-val", "1", "--frames", "2"]
    main(options)
    main(options)
    (tmp_path / "train.json").write_text("my own")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    said = refuse(capsys, *options)

    assert "train.json: exists, and was not made by this tool" in said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    main([*options, "--overwrite"])


def test_own_frames_are_not_drawn_over(tmp_path, capsys):
    frames = tmp_path / "val" / "JPEGImages" / "video_0000"
    frames.mkdir(parents=True)
    (frames / "00000.jpg").write_bytes(b"my own")

    assert "video_0000: exists" in refuse(capsys, "--output", str(tmp_path))
    assert (frames / "00000.jpg").read_bytes() == b"my own"
    assert not (tmp_path / "train").exists()


def test_corrected_frame_stays_and_a_copy_by_links_survives_overwriting(tmp_path, capsys):
    output = tmp_path / "set"
    options = ["--output", str(output), "--num-train", "1", "--num-val", "1", "--frames", "1"]
    options += ["--size", "48x48", "--objects", "1-1"]
    main(options)
    frame, copy = next(output.rglob("*.jpg")), tmp_path / "copy.jpg"
    frame.write_bytes(b"corrected")
    copy.hardlink_to(frame)

    with pytest.raises(SystemExit):
        main(options)
    assert "was changed since" in capsys.readouterr().err
    assert frame.read_bytes() == b"corrected"

    main([*options, "--overwrite"])
    assert frame.read_bytes() != b"corrected"
    assert copy.read_bytes() == b"corrected"
