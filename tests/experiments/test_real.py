"""tools/experiment.py real: figures, tables, pictures, and what is told to the user."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from experiments.command_line import main
from experiments.real import METHODS
from maskfreevis_ext.modeling import EfficientNetLite0
from tests.helpers.videos import plain_content, write_frames, write_json


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Annotations with masks and folder of the frames; the backbone has random weights."""
    monkeypatch.setattr(EfficientNetLite0, "load_imagenet_weights", lambda self: None)
    content = plain_content((3, 2), masks=True)
    del content["annotations"][3]  # the second video has one object
    return write_json(tmp_path, content), write_frames(tmp_path, content)


def _run(clips: tuple[str, str], *words: object) -> None:
    json_file, images = clips
    main(["real", "--json", json_file, "--images", images, "--steps", "3", *map(str, words)])


def _fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        _run(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_objects_are_scored_and_written(clips, tmp_path, capsys) -> None:
    _run(clips, "--output", tmp_path / "out")
    printed = capsys.readouterr().out
    with open(tmp_path / "out" / "table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["video"], row["object"]) for row in rows] == [
        ("v1", "10"),
        ("v1", "11"),
        ("v2", "20"),
    ]
    assert all(float(row["box"]) == 1 for row in rows)  # the masks are filled boxes
    assert all(0 <= float(row[method]) <= 1 for row in rows for method in METHODS)
    assert (tmp_path / "out" / "table.md").read_text() in printed
    assert "| mean of one-object videos | 1 |" in printed
    for name in ("best.jpg", "worst.jpg"):
        assert (tmp_path / "out" / name).stat().st_size > 1000


def test_boxes_of_another_file_are_fitted_to(clips, tmp_path, capsys) -> None:
    content = plain_content((3, 2))
    del content["annotations"][3]
    _run(clips, "--boxes-json", write_json(tmp_path, content, "boxes.json"))
    assert "mean of all objects | 3 | " in capsys.readouterr().out


def test_other_objects_in_the_boxes_are_told(clips, tmp_path, capsys) -> None:
    boxes = write_json(tmp_path, plain_content((3, 2)), "boxes.json")
    line = _fails(capsys, clips, "--boxes-json", boxes)
    assert "expected the objects [20] of --json in --boxes-json, got [20, 21]" in line


def test_annotations_without_masks_are_told(clips, tmp_path, capsys) -> None:
    file = write_json(tmp_path, plain_content((3, 2)), "boxes.json")
    assert "needs a mask, and there is only a box" in _fails(capsys, (file, clips[1]))
