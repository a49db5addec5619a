"""tools/boxes_to_masks.py: what is added, what stays, and what is told to the user."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.convert import Conversion, convert
from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.inference.boxes_to_masks.masking import MaskMaker
from maskfreevis_ext.modeling import EfficientNetLite0
from maskfreevis_ext.rle import decode_rle
from tests.helpers.training import CONFIG, ROOT, tiny_options
from tests.helpers.videos import HEIGHT, WIDTH, plain_content, rectangle, write_frames, write_json

ADDED = {
    *("segmentations", "areas", "mask_source", "confidence", "confidences"),
    *("doubtful", "doubtful_frames"),
}

tool = runpy.run_path(str(ROOT / "tools" / "boxes_to_masks.py"))


def _fixed_weights(backbone: EfficientNetLite0) -> None:
    """Random weights, in each run the same."""
    torch.manual_seed(0)
    for module in backbone.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Annotations with boxes and folder of the frames; the backbone has random weights."""
    monkeypatch.setattr(EfficientNetLite0, "load_imagenet_weights", _fixed_weights)
    content = plain_content((3, 2, 2))
    content["annotations"] = content["annotations"][:3]  # the third video has no object
    content["annotations"][2]["iscrowd"] = 1
    content["annotations"][0]["note"] = "stays"
    return write_json(tmp_path, content), write_frames(tmp_path, content)


def _run(clips: tuple[str, str], output: object, method: str = "pixel_head", *more: object) -> None:
    words = ["--json", clips[0], "--images", clips[1], "--output", output, "--steps", 3]
    tool["main"]([str(word) for word in (*words, "--method", method, *more)])


def _fails(
    capsys: pytest.CaptureFixture[str], clips: tuple[str, str], output: object, *more: object
) -> str:
    with pytest.raises(SystemExit) as stop:
        _run(clips, output, "grabcut", *more)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def _annotations(path: Path) -> list[dict]:
    return json.loads(path.read_text())["annotations"]


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
    (tmp_path / "file").write_text("mine")
    line = _fails(capsys, clips, tmp_path / "file" / "masks.json")
    assert "masks.json: cannot be written" in line


def test_input_is_not_overwritten(clips, capsys) -> None:
    before = Path(clips[0]).read_bytes()
    assert "is an input" in _fails(capsys, clips, clips[0])
    assert Path(clips[0]).read_bytes() == before


def test_existing_file_is_replaced_only_when_asked_for(clips, tmp_path, capsys) -> None:
    output = tmp_path / "masks.json"
    output.write_text("mine")
    assert "masks.json: exists" in _fails(capsys, clips, output)
    assert output.read_text() == "mine"
    _run(clips, output, "grabcut", "--overwrite")
    assert len(_annotations(output)) == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--minutes", "0"), "--minutes: expected a number > 0"),
        (("--steps", "0"), "--steps: expected at least 1"),
        (("--min-confidence", "2"), "--min-confidence: expected 0..1"),
        (("--weights", "x.pth"), "expected --config-file"),
        (("--to", "davis", "--review", f"{CONFIG}/x.html"), "is a file, not a folder"),
    ],
)
def test_options_that_cannot_be_used(clips, tmp_path, capsys, words, expected) -> None:
    assert expected in _fails(capsys, clips, tmp_path / "masks.json", *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "instances.json"]


def test_missing_frames_are_counted_before_the_work(clips, tmp_path, capsys) -> None:
    (Path(clips[1]) / "v1" / "00001.png").unlink()
    line = _fails(capsys, clips, tmp_path / "masks.json")
    assert "1 of 3 frames do not exist" in line  # video 2 is not looked at: a crowd, and no object


def test_run_that_was_stopped_goes_on(clips, tmp_path, monkeypatch, capsys) -> None:
    """Two of four videos are finished when the run is killed; they are not done again."""
    content = plain_content((2, 2, 2, 2))
    clips = write_json(tmp_path, content, "four.json"), write_frames(tmp_path, content)
    output, whole = tmp_path / "masks.json", tmp_path / "whole.json"
    _run(clips, whole, "grabcut")
    run, done = MaskMaker.run, []

    def stop(self: MaskMaker, given: object, *rest: object) -> object:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(given)
        return run(self, given, *rest)

    monkeypatch.setattr(MaskMaker, "run", stop)
    with pytest.raises(SystemExit) as end:
        _run(clips, output, "grabcut")
    assert end.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not output.exists()
    assert "another input or other options" in _fails(capsys, clips, output, "--seed", 1)
    done.clear()
    _run(clips, output, "grabcut")
    assert len(done) == 2
    assert output.read_bytes() == whole.read_bytes()
    assert not Path(f"{output}.partial").exists()


def test_review_page_and_marks(clips, tmp_path) -> None:
    output, page = tmp_path / "masks.json", tmp_path / "review.html"
    _run(clips, output, "grabcut", "--review", page, "--min-confidence", 1)
    text = page.read_text()
    assert text.count("<section") == 2
    assert text.count("data:image/jpeg") == 3 + 2
    entry = _annotations(output)[0]
    assert entry["doubtful"]
    assert entry["doubtful_frames"] == [0, 1, 2]


def test_given_masks_stay_as_they_are_and_are_marked(clips, tmp_path) -> None:
    content = json.loads(Path(clips[0]).read_text())
    polygon = [[2, 3, 10, 3, 10, 9, 2, 9]]
    content["annotations"][0] |= {"segmentations": [polygon, None, None], "areas": [7, None, None]}
    output = tmp_path / "masks.json"
    _run((write_json(tmp_path, content), clips[1]), output)
    entry = _annotations(output)[0]
    assert entry["segmentations"][0] == polygon
    assert entry["areas"][0] == 7
    assert entry["mask_source"] == "mixed"
    assert entry["mask_sources"][0] == "given"
    assert "given" not in entry["mask_sources"][1:]
    assert entry["confidences"][0] == 1
    again = tmp_path / "again.json"  # masks that the tool made are made anew, given ones stay
    _run((str(output), clips[1]), again)
    assert _annotations(again)[0] == entry


def test_time_limit_gives_every_box_a_mask(clips, tmp_path) -> None:
    output = tmp_path / "masks.json"
    _run(clips, output, "pixel_head", "--minutes", "1e-9")
    entry = _annotations(output)[0]
    assert entry["areas"] == [48, 48, 48]
    assert (entry["mask_source"], entry["confidence"], entry["doubtful"]) == ("box", 0, True)


@pytest.mark.parametrize(("name", "ending"), [("coco", ".json"), ("cvat", ""), ("davis", "")])
def test_other_formats_are_written(clips, tmp_path, name: str, ending: str) -> None:
    output = tmp_path / f"masks{ending}"
    _run(clips, output, "grabcut", "--to", name)
    options = ReadOptions(clips[1])
    masks = [
        mask
        for video in read_annotations(name, output, options)
        for track in video.tracks
        for mask in track.masks.values()
    ]
    assert len(masks) >= 5
    assert not Path(f"{output}.partial").exists()


def test_masks_corrected_in_cvat_come_back(clips, tmp_path) -> None:
    """YouTube-VIS to CVAT, one mask corrected there, and back: the others are made anew."""
    content = json.loads(Path(clips[0]).read_text())
    content["annotations"] = content["annotations"][:2]
    clips = write_json(tmp_path, content), clips[1]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    _run(clips, first)
    corrected = json.loads(first.read_text())
    corrected["annotations"][0]["segmentations"][1] = rectangle(4, 4, 3, 3)
    path = write_json(tmp_path, corrected, "corrected.json")
    convert(Conversion("ytvis", path, "cvat", str(tmp_path / "xml")))
    _run(
        (str(tmp_path / "xml"), clips[1]),
        second,
        "pixel_head",
        "--from",
        "cvat",
        "--previous",
        first,
    )
    given = [
        [source == "given" for source in entry.get("mask_sources") or [None] * 3]
        for entry in _annotations(second)
    ]
    assert sorted(given) == [[False] * 3, [False, True, False]]


def test_trained_model_is_joined_in(tiny_videos, tmp_path, monkeypatch) -> None:
    """A model with random weights; where its boxes disagree with the given ones it says nothing."""
    monkeypatch.setattr(EfficientNetLite0, "load_imagenet_weights", _fixed_weights)
    options = tiny_options(tiny_videos, tmp_path)
    cfg = load_config(CONFIG, options)
    weights = tmp_path / "model.pth"
    torch.save({"model": build_model(cfg).state_dict()}, weights)
    output = tmp_path / "masks.json"
    clips = str(tiny_videos / "val.json"), str(tiny_videos / "val" / "JPEGImages")
    words = ["--config-file", CONFIG, "--weights", weights, "--opts", *options]
    _run(clips, output, "pixel_head", *words)
    for entry in _annotations(output):
        for box, mask in zip(entry["bboxes"], entry["segmentations"], strict=True):
            assert (box is None) == (mask is None)
