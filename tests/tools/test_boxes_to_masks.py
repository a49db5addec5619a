"""tools/boxes_to_masks.py: what is added, what stays, and what is told to the user."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.modeling import EfficientNetLite0
from maskfreevis_ext.rle import decode_rle
from tests.helpers.training import ROOT
from tests.helpers.videos import HEIGHT, WIDTH, plain_content, write_frames, write_json

ADDED = {
    *("segmentations", "areas", "mask_source", "confidence", "confidences"),
    *("doubtful", "doubtful_frames"),
}

tool = runpy.run_path(str(ROOT / "tools" / "boxes_to_masks.py"))


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Annotations with boxes and folder of the frames; the backbone has random weights."""
    monkeypatch.setattr(EfficientNetLite0, "load_imagenet_weights", lambda self: None)
    content = plain_content((3, 2, 2))
    content["annotations"] = content["annotations"][:3]  # the third video has no object
    content["annotations"][2]["iscrowd"] = 1
    content["annotations"][0]["note"] = "stays"
    return write_json(tmp_path, content), write_frames(tmp_path, content)


def _run(clips: tuple[str, str], output: object, method: str = "pixel_head") -> None:
    words = ["--json", clips[0], "--images", clips[1], "--output", str(output), "--steps", "3"]
    tool["main"]([*words, "--method", method])


def _fails(capsys: pytest.CaptureFixture[str], clips: tuple[str, str], output: object) -> str:
    with pytest.raises(SystemExit) as stop:
        _run(clips, output)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("method", ["pixel_head", "grabcut"])
def test_masks_are_added_and_the_rest_stays(clips, tmp_path, capsys, method: str) -> None:
    output = tmp_path / "masks.json"
    _run(clips, output, method)
    given, made = json.loads(Path(clips[0]).read_text()), json.loads(output.read_text())
    for before, after in zip(given["annotations"], made["annotations"], strict=True):
        added = ADDED if not before["iscrowd"] else set()
        assert after.keys() - before.keys() == added
        assert {key: after[key] for key in before} == before
        if not added:
            continue
        assert 0 <= after["confidence"] <= 1
        for box, rle, area in zip(
            after["bboxes"], after["segmentations"], after["areas"], strict=True
        ):
            assert (box is None) == (rle is None) == (area is None)
            if rle is not None:
                mask = decode_rle(rle)
                assert mask.shape == (HEIGHT, WIDTH)
                assert mask.sum() == area
                x, y, width, height = box
                mask[y : y + height, x : x + width] = False
                assert not mask.any()  # nothing outside the box
    assert {key: made[key] for key in ("videos", "categories")} == {
        key: given[key] for key in ("videos", "categories")
    }
    assert load_ytvis_json(str(output), clips[1])[0]["has_masks"]
    assert "masks of 2 objects" in capsys.readouterr().out


def test_equal_runs_give_equal_files(clips, tmp_path) -> None:
    for name in ("one.json", "two.json"):
        _run(clips, tmp_path / name)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_output_that_cannot_be_written_is_told_before_the_work(clips, tmp_path, capsys) -> None:
    line = _fails(capsys, clips, tmp_path / "absent" / "masks.json")
    assert "cannot be written" in line


def test_input_is_not_overwritten(clips, capsys) -> None:
    before = Path(clips[0]).read_bytes()
    assert "is the input" in _fails(capsys, clips, clips[0])
    assert Path(clips[0]).read_bytes() == before
