"""Conversions: classes, splits, outputs that are whole or absent, checks that go on."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest
from pycocotools import mask as mask_util

from maskfreevis_ext.data.annotation_changes import map_classes, read_class_map, split_videos
from maskfreevis_ext.data.convert import (
    Conversion,
    check_annotations,
    convert,
    open_set,
    staged_outputs,
)
from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.data.writers import WriteOptions
from maskfreevis_ext.errors import ConfigError, DataError
from tests.helpers.videos import plain_content, write_frames, write_json


def _content(tmp_path, lengths=(4, 3), masks=True):
    return write_json(tmp_path, plain_content(lengths, masks=masks))


def _job(tmp_path, source, **changes):
    values = {"target_format": "ytvis", "target": str(tmp_path / "out.json"), **changes}
    return Conversion("ytvis", source, **values)


def _ytvis(path):
    return list(read_annotations("ytvis", str(path)))


def test_conversion_says_what_was_written(tmp_path):
    results = convert(_job(tmp_path, _content(tmp_path)))
    ((path, (summary, notes)),) = results.items()
    assert path == str(tmp_path / "out.json")
    assert str(summary) == "2 videos, 7 frames, 4 tracks, 12 boxes, 12 masks"
    assert summary.classes == Counter(dog=2, cat=2)
    assert not any(notes.values())
    assert json.loads((tmp_path / "out.json").read_text())["annotations"][1]["bboxes"][0] is None


def test_to_boxes_leaves_masks_out_and_counts_them(tmp_path):
    results = convert(_job(tmp_path, _content(tmp_path), to_boxes=True))
    (_, notes) = results[str(tmp_path / "out.json")]
    assert notes["masks left out (--to-boxes)"] == 12
    content = json.loads((tmp_path / "out.json").read_text())
    assert not any("segmentations" in entry for entry in content["annotations"])


def test_classes_are_renamed_joined_and_left_out_with_a_count(tmp_path):
    source = _content(tmp_path)
    mapping = tmp_path / "map.json"
    mapping.write_text(json.dumps({"dog": "animal", "emu": "animal", "cat": None}))
    results = convert(_job(tmp_path, source, classes=str(mapping)))
    (summary, notes) = results[str(tmp_path / "out.json")]
    assert summary.classes == Counter(animal=2)
    assert notes["tracks left out, of the class 'cat'"] == 2
    assert json.loads((tmp_path / "out.json").read_text())["categories"] == [
        {"id": 1, "name": "animal"}
    ]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [({"horse": "x"}, "maps none of them"), ({"cat": 3}, "null, got 3"), ({}, "at least one")],
)
def test_mapping_that_fits_nothing_is_refused(tmp_path, mapping, message):
    path = write_json(tmp_path, mapping, "map.json")
    dataset = read_annotations("ytvis", _content(tmp_path))
    with pytest.raises(DataError, match=message):
        map_classes(dataset, read_class_map(path), path)


def test_split_is_by_video_complete_and_the_same_every_time(tmp_path):
    names = [f"video {i}" for i in range(50)]
    train, val = split_videos(names, 0.2)
    assert (len(train), len(val)) == (40, 10)
    assert sorted(train + val) == list(range(50))
    again = split_videos(names[::-1], 0.2)[1]
    assert {names[i] for i in val} == {names[::-1][i] for i in again}
    assert [len(part) for part in split_videos(names[:2], 0.01)] == [1, 1]
    with pytest.raises(DataError, match="at least two videos"):
        split_videos(["a"], 0.5)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_videos(names, 1.0)


def test_split_writes_two_outputs(tmp_path):
    source = _content(tmp_path, (1, 2, 3, 4, 5))
    results = convert(_job(tmp_path, source, split=0.4))
    assert [os.path.basename(path) for path in results] == ["out_train.json", "out_val.json"]
    parts = [_ytvis(path) for path in results]
    assert [len(part) for part in parts] == [3, 2]
    job = _job(tmp_path, source, split=0.4, target_format="davis", target=str(tmp_path / "masks"))
    results = convert(job)
    assert [os.path.basename(path) for path in results] == ["train", "val"]
    assert len(list(read_annotations("davis", str(tmp_path / "masks" / "val")))) == 2


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path):
    content = plain_content((4, 3), masks=True)
    content["annotations"][-1]["bboxes"][1] = [1, 2, -3, 4]
    source = write_json(tmp_path, content)
    before = sorted(tmp_path.rglob("*"))
    for name in ("ytvis", "davis", "csv"):
        for split in (None, 0.5):
            job = _job(tmp_path, source, target_format=name, split=split)
            with pytest.raises(DataError, match="size that is not negative"):
                convert(job)
            assert sorted(tmp_path.rglob("*")) == before


def test_output_never_replaces_the_input_or_what_is_there(tmp_path):
    source = _content(tmp_path)
    (tmp_path / "link.json").symlink_to(source)
    for target in (
        source,
        str(tmp_path / "link.json"),
        str(tmp_path / "a" / ".." / "instances.json"),
    ):
        (tmp_path / "a").mkdir(exist_ok=True)
        with pytest.raises(DataError, match="is an input"):
            convert(_job(tmp_path, source, target=target, overwrite=True))
    (tmp_path / "out.json").write_text("mine")
    with pytest.raises(DataError, match="add --overwrite"):
        convert(_job(tmp_path, source))
    convert(_job(tmp_path, source, overwrite=True))
    assert len(_ytvis(tmp_path / "out.json")) == 2
    convert(_job(tmp_path, source))  # what this wrote itself may be written anew
    with pytest.raises(DataError, match="new or empty folder"):  # that of the input
        convert(_job(tmp_path, source, target_format="davis", target=str(tmp_path)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(DataError, match="new or empty folder"):
        convert(_job(tmp_path, source, target_format="davis", target=str(tmp_path / "full")))
    assert (tmp_path / "full" / "x").read_text() == "mine"


def test_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match="cannot be written"),
        staged_outputs([str(tmp_path / "file" / "out.json")], False, [], False),
    ):
        pass


def test_check_goes_on_after_a_video_that_cannot_be_used(tmp_path):
    content = plain_content((4, 3, 2))
    content["annotations"][2]["bboxes"][1] = [1, 2, float("nan"), 4]
    dataset = open_set("ytvis", write_json(tmp_path, content), ReadOptions())
    problems = []
    summary, count = check_annotations(dataset, problems.append)
    assert (summary.videos, count, len(problems)) == (2, 1, 1)
    assert "annotations[2] (id 20).bboxes[1]" in problems[0]


def test_frames_are_checked_where_their_folder_is_known(tmp_path):
    content = plain_content((2, 2))
    images = write_frames(tmp_path, content)
    source = write_json(tmp_path, content)
    assert len(list(open_set("ytvis", source, ReadOptions(images)))) == 2
    os.remove(os.path.join(images, "v2", "00001.png"))
    with pytest.raises(DataError, match="1 of 2 frames do not exist"):
        list(open_set("ytvis", source, ReadOptions(images)))
    content["videos"][0]["width"] += 1
    with pytest.raises(DataError, match=r"say 31 x 20 pixels, the picture has 30 x 20"):
        list(open_set("ytvis", write_json(tmp_path, content), ReadOptions(images)))


def test_polygons_of_cvat_cover_what_the_masks_did(tmp_path):
    source = _content(tmp_path)
    write = WriteOptions(masks_as="polygon")
    target = str(tmp_path / "xml")
    convert(_job(tmp_path, source, target_format="cvat", target=target, write=write))
    found = {video.name: video for video in read_annotations("cvat", target)}
    for video in _ytvis(source):
        for track in video.tracks:
            other = next(t for t in found[video.name].tracks if t.id == track.id)
            for t, mask in track.masks.items():
                assert mask_util.iou([mask], [other.masks[t]], [0])[0, 0] > 0.95
