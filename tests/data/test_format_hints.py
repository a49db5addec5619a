"""Files that are something else than YouTube-VIS: the error names the command that mends them."""

from __future__ import annotations

import json
import os

import pytest

from maskfreevis_ext.data.convert import Conversion, check_annotations, convert, open_set
from maskfreevis_ext.data.frame_files import check_images
from maskfreevis_ext.data.readers import ReadOptions
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import DataError
from tests.helpers.videos import HEIGHT, WIDTH, plain_content, write_frames, write_json

IMAGE = {"id": 1, "file_name": "a.jpg", "width": 30, "height": 20}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"images": [IMAGE], "annotations": [], "categories": []}, "coco"),
        ({"images": [IMAGE], "annotations": [{"track_id": 1}]}, "coco-video"),
        ({"images": [IMAGE], "videos": [{"id": 1, "name": "a"}]}, "coco-video"),
        ({"sequences": []}, "burst"),
        ({"masklet": [], "video_id": "a"}, "sa-v"),
        ({"shapes": [], "imagePath": "a.jpg"}, "labelme"),
        ({"frames": [], "config": {}}, "bdd100k"),
    ],
)
def test_other_json_is_named_with_the_command(tmp_path, content, name):
    path = write_json(tmp_path, content)
    with pytest.raises(DataError, match=f"convert_dataset.py --from {name} --input {path}"):
        load_ytvis_json(path, "root")


def test_xml_and_lists_are_named(tmp_path):
    (tmp_path / "a.xml").write_text('\ufeff<?xml version="1.0"?><annotations/>', "utf-8")
    with pytest.raises(DataError, match="--from cvat"):
        load_ytvis_json(str(tmp_path / "a.xml"), "root")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match=r"got list.*convert_dataset\.py"):
        load_ytvis_json(str(tmp_path / "a.json"), "root")


def _corners(content):
    for entry in content["annotations"]:
        entry["bboxes"] = [b and [b[0], b[1], b[0] + b[2], b[1] + b[3]] for b in entry["bboxes"]]
    return content


def test_corners_are_told_from_boxes_and_mended(tmp_path):
    plain = plain_content((6, 5))
    path = write_json(tmp_path, _corners(plain_content((6, 5))))
    with pytest.raises(DataError, match=r"look like corners.*--corners"):
        load_ytvis_json(path, "root")
    problems = []
    assert check_annotations(open_set("ytvis", path, ReadOptions()), problems.append)[1] == 1
    assert "look like corners" in problems[0]
    target = str(tmp_path / "out.json")
    with pytest.raises(DataError, match="look like corners"):
        convert(Conversion("ytvis", path, "ytvis", target))
    assert not os.path.exists(target)
    convert(Conversion("ytvis", path, "ytvis", target, read=ReadOptions(corners=True)))
    with open(target) as file:
        mended = json.load(file)
    assert [entry["bboxes"] for entry in mended["annotations"]] == [
        entry["bboxes"] for entry in plain["annotations"]
    ]
    load_ytvis_json(target, "root")


def test_boxes_that_stick_out_are_no_corners(tmp_path):
    content = plain_content((6, 5))
    for entry in content["annotations"][1::2]:
        entry["bboxes"] = [b and [WIDTH - 5, HEIGHT - 5, 10, 10] for b in entry["bboxes"]]
    assert len(load_ytvis_json(write_json(tmp_path, content), "root")) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name: name.replace("/", "\\"), "has backslashes"),
        (lambda name: name.replace(".png", ".PNG"), r"There is '00000\.png'"),
        (lambda name: name.replace(".png", ".jpg"), r"There is '00000\.png'"),
    ],
)
def test_names_of_frames_are_explained_and_mended(tmp_path, change, message):
    content = plain_content((2, 2))
    images = write_frames(tmp_path, content)
    for video in content["videos"]:
        video["file_names"] = [change(name) for name in video["file_names"]]
    path = write_json(tmp_path, content)
    with pytest.raises(DataError, match=f"{message}.*convert_dataset"):
        check_images(load_ytvis_json(path, images))
    dataset = open_set("ytvis", path, ReadOptions(images))
    names = [name for video in dataset for name in video.file_names]
    assert all(os.path.isfile(os.path.join(images, name)) for name in names)
    assert sum(dataset.notes.values()) == 4
