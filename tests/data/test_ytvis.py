"""Reading YouTube-VIS files: what is accepted, what is mended, what is refused and how."""

from __future__ import annotations

import copy
import json
import logging
import os

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util

from maskfreevis_ext.data import categories
from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.data.registration import register_ytvis_instances
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import ConfigError, DataError
from tests.helpers.videos import (
    HEIGHT,
    WIDTH,
    plain_content,
    rectangle,
    unique_name,
    write_json,
)


def _load(tmp_path, content, dataset_name=None):
    return load_ytvis_json(write_json(tmp_path, content), "root", dataset_name)


def test_box_only_file_gives_the_dataset_dicts_of_the_contract(tmp_path):
    first, second = _load(tmp_path, plain_content())
    assert first["file_names"] == [os.path.join("root", f"v1/{t:05d}.png") for t in range(4)]
    assert (first["height"], first["width"], first["length"]) == (HEIGHT, WIDTH, 4)
    assert (first["video_id"], second["video_id"]) == (1, 2)
    assert first["has_masks"] is False
    assert [len(frame) for frame in first["annotations"]] == [1, 2, 2, 2]
    dog, cat = first["annotations"][2]
    assert dog == {
        "id": 10,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [4.0, 3.0, 8.0, 6.0],
        "bbox_mode": BoxMode.XYWH_ABS,
    }
    assert (cat["id"], cat["category_id"], cat["bbox"]) == (11, 0, [15.0, 7.0, 10.0, 7.0])


@pytest.mark.parametrize("absent", ["no key", "null", "list of nulls"])
def test_segmentations_may_be_absent_in_any_way(tmp_path, absent):
    content = plain_content()
    for track in content["annotations"]:
        if absent == "null":
            track["segmentations"] = None
        elif absent == "list of nulls":
            track["segmentations"] = [None] * len(track["bboxes"])
    videos = _load(tmp_path, content)
    assert sum(len(frame) for video in videos for frame in video["annotations"]) == 12
    assert not any(video["has_masks"] for video in videos)


@pytest.mark.parametrize("form", ["compressed", "uncompressed", "polygon"])
def test_masks_of_every_form_become_compressed_rle(tmp_path, form):
    content = plain_content(masks=True)
    for track in content["annotations"]:
        for t, box in enumerate(track["bboxes"]):
            if box is None or form == "compressed":
                continue
            x, y, w, h = box
            if form == "polygon":
                track["segmentations"][t] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            else:
                rle = {**track["segmentations"][t]}
                mask = mask_util.decode({**rle, "counts": rle["counts"].encode()})
                flat = np.concatenate([[0], mask.T.ravel(), [0]])
                edges = np.flatnonzero(np.diff(flat))
                runs = np.diff([0, *edges, mask.size]).tolist()
                track["segmentations"][t] = {"size": [HEIGHT, WIDTH], "counts": runs}
    videos = _load(tmp_path, content)
    assert all(video["has_masks"] for video in videos)
    for video in videos:
        for item in (item for frame in video["annotations"] for item in frame):
            assert isinstance(item["segmentation"]["counts"], bytes)
            np.testing.assert_array_equal(mask_util.toBbox(item["segmentation"]), item["bbox"])


def test_box_is_taken_from_the_mask_where_there_is_only_a_mask(tmp_path, caplog):
    content = plain_content(masks=True)
    boxes = content["annotations"][0]["bboxes"]
    expected = [float(x) for x in boxes[1]]
    boxes[1] = None
    del content["annotations"][1]["bboxes"]
    with caplog.at_level(logging.WARNING):
        video = _load(tmp_path, content)[0]
    assert video["annotations"][1][0]["bbox"] == expected
    assert [item["id"] for item in video["annotations"][0]] == [10]
    assert video["annotations"][3][1]["bbox"] == [15, 8, 10, 7]
    assert "4 boxes taken from masks" in caplog.text


def test_an_empty_mask_without_a_box_is_no_object(tmp_path):
    content = plain_content(masks=True)
    track = content["annotations"][0]
    track["bboxes"][1] = None
    track["segmentations"][1] = rectangle(0, 0, 0, 0)
    video = _load(tmp_path, content)[0]
    assert [item["id"] for item in video["annotations"][1]] == [11]


def test_has_masks_is_false_where_one_box_has_no_mask_and_ignores_crowds(tmp_path):
    content = plain_content(masks=True)
    content["annotations"][0]["segmentations"][2] = None
    content["annotations"][3]["segmentations"][2] = None
    content["annotations"][3]["iscrowd"] = 1
    first, second = _load(tmp_path, content)
    assert first["has_masks"] is False
    assert second["has_masks"] is True
    assert [item["iscrowd"] for item in second["annotations"][2]] == [0, 1]


def test_confidence_of_a_frame_goes_before_that_of_the_track(tmp_path):
    content = plain_content(masks=True)
    first, second = content["annotations"][:2]
    first["confidence"] = 0.5
    first["confidences"] = [0.25, None, 1, 0]
    second["confidences"] = [None, 0.75, None, None]
    video, other = _load(tmp_path, content)
    assert video["has_confidences"]
    assert not other["has_confidences"]
    found = [{o["id"]: o.get("confidence") for o in frame} for frame in video["annotations"]]
    assert [frame[10] for frame in found] == [0.25, 0.5, 1, 0]
    assert [frame.get(11) for frame in found] == [None, 0.75, None, None]


def test_confidence_without_a_mask_says_nothing(tmp_path):
    content = plain_content()
    content["annotations"][0]["confidence"] = 0.5
    video = _load(tmp_path, content)[0]
    assert not video["has_confidences"]
    assert all("confidence" not in item for frame in video["annotations"] for item in frame)


@pytest.mark.parametrize("value", [1.5, -0.1, True, "high", float("nan")])
@pytest.mark.parametrize("field", ["confidence", "confidences[1]"])
def test_confidence_outside_its_range_is_refused(tmp_path, field, value):
    content = plain_content(masks=True)
    track = content["annotations"][0]
    track[field.split("[")[0]] = value if field == "confidence" else [None, value, None, None]
    with pytest.raises(DataError) as error:
        _load(tmp_path, content)
    assert f"annotations[0] (id 10).{field} must be a number in [0, 1] or null" in str(error.value)


def test_optional_fields_may_be_absent(tmp_path):
    content = plain_content()
    for video in content["videos"]:
        del video["length"]
    for track in content["annotations"]:
        del track["iscrowd"]
    videos = _load(tmp_path, content)
    assert [video["length"] for video in videos] == [4, 3]
    assert videos[0]["annotations"][0][0]["iscrowd"] == 0


def test_empty_lists_and_null_are_absence(tmp_path):
    """As tools write it: no box in a frame, no masks of a track, no flag."""
    content = plain_content(masks=True)
    expected = plain_content(masks=True)
    first, second = content["annotations"][:2]
    first["iscrowd"], second["segmentations"] = None, []
    del expected["annotations"][1]["segmentations"]
    second["bboxes"] = [box or [] for box in second["bboxes"]]
    content["annotations"][2]["bboxes"] = []
    del expected["annotations"][2]["bboxes"]
    assert _load(tmp_path, content) == _load(tmp_path, expected)


def test_file_without_annotations_gives_videos_without_objects(tmp_path):
    content = plain_content()
    del content["annotations"]
    videos = _load(tmp_path, content)
    assert [video["annotations"] for video in videos] == [[[]] * 4, [[]] * 3]
    assert not videos[0]["has_masks"]


def test_videos_come_sorted_by_id(tmp_path):
    content = plain_content((2, 2, 2))
    content["videos"].reverse()
    assert [video["video_id"] for video in _load(tmp_path, content)] == [1, 2, 3]


def test_boxes_are_clipped_counted_and_said_once(tmp_path, caplog):
    content = plain_content()
    content["annotations"][0]["bboxes"][0] = [-3, -2, 8, 6]
    content["annotations"][0]["bboxes"][1] = [25.5, 15.5, 10, 10]
    content["annotations"][0]["bboxes"][2] = [-5, -5, 100, 100]
    content["annotations"][0]["bboxes"][3] = [0, 0, WIDTH, HEIGHT]
    with caplog.at_level(logging.WARNING):
        video = _load(tmp_path, content)[0]
    boxes = [frame[0]["bbox"] for frame in video["annotations"]]
    full = [0, 0, WIDTH, HEIGHT]
    assert boxes == [[0, 0, 5, 4], [25.5, 15.5, 4.5, 4.5], full, full]
    assert len(caplog.records) == 1
    assert "3 boxes clipped to the frame" in caplog.text


def test_boxes_without_area_and_bad_polygons_are_counted(tmp_path, caplog):
    content = plain_content(masks=True)
    content["annotations"][0]["bboxes"][0] = [5, 5, 0, 4]
    content["annotations"][0]["segmentations"][0] = None
    content["annotations"][1]["segmentations"][1] = [[1, 2, 3], [1, 2, 3, 4]]
    with caplog.at_level(logging.WARNING):
        video = _load(tmp_path, content)[0]
    assert video["annotations"][0] == []
    assert "segmentation" not in video["annotations"][1][1]
    assert len(caplog.records) == 1
    assert "1 boxes without area" in caplog.text
    assert "2 polygons dropped" in caplog.text


def test_a_clean_file_logs_no_warning(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        _load(tmp_path, plain_content(masks=True))
    assert "2 videos, 7 frames, 12 boxes" in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)


# --- what is refused -----------------------------------------------------------------------------


def _change(*path, to):
    def mutate(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        content[last] = to

    return mutate


def _delete(*path):
    def mutate(content):
        *parents, last = path
        for key in parents:
            content = content[key]
        del content[last]

    return mutate


def _duplicate(field):
    return lambda content: content[field].append(copy.deepcopy(content[field][0]))


NAN, INF = float("nan"), float("inf")
VIDEO, TRACK, BOXES = ("videos", 1), ("annotations", 2), ("annotations", 2, "bboxes")
REFUSED = {
    "videos absent": (_delete("videos"), "'videos'"),
    "videos null": (_change("videos", to=None), "'videos'"),
    "videos empty": (_change("videos", to=[]), "'videos' is empty"),
    "videos an object": (_change("videos", to={}), "'videos'"),
    "video a number": (_change(*VIDEO, to=3), r"videos\[1\]"),
    "video id absent": (_delete(*VIDEO, "id"), r"videos\[1\]\.id .* nothing"),
    "video id text": (_change(*VIDEO, "id", to="2"), r"videos\[1\]\.id .*'2'"),
    "video id float": (_change(*VIDEO, "id", to=2.0), r"videos\[1\]\.id"),
    "video id negative": (_change(*VIDEO, "id", to=-2), r"\.id .*-2"),
    "video id boolean": (_change(*VIDEO, "id", to=True), r"\.id .*True"),
    "video id huge": (_change(*VIDEO, "id", to=10**400), r"\.id"),
    "video id twice": (_duplicate("videos"), r"videos\[2\] \(id 1\)\.id must be unique"),
    "height absent": (_delete(*VIDEO, "height"), r"videos\[1\] \(id 2\)\.height .* nothing"),
    "height zero": (_change(*VIDEO, "height", to=0), r"\.height .*0"),
    "height text": (_change(*VIDEO, "height", to="20"), r"\.height"),
    "width NaN": (_change(*VIDEO, "width", to=NAN), r"\.width"),
    "width huge": (_change(*VIDEO, "width", to=10**9), r"\.width"),
    "too many pixels": (
        lambda c: c["videos"][1].update(height=16000, width=16000),
        r"\.height .*pixels",
    ),
    "file names absent": (_delete(*VIDEO, "file_names"), r"\.file_names .* nothing"),
    "file names empty": (_change(*VIDEO, "file_names", to=[]), r"\.file_names"),
    "file names text": (_change(*VIDEO, "file_names", to="abc"), r"\.file_names"),
    "file name number": (_change(*VIDEO, "file_names", 1, to=5), r"\.file_names\[1\] .*5"),
    "file name empty": (_change(*VIDEO, "file_names", 1, to=""), r"\.file_names\[1\]"),
    "file name up": (
        _change(*VIDEO, "file_names", 1, to="../../etc/passwd"),
        r"\.file_names\[1\] .*under the image root",
    ),
    "file name up inside": (_change(*VIDEO, "file_names", 1, to="a/../b.jpg"), r"\[1\]"),
    "file name up, backslash": (_change(*VIDEO, "file_names", 1, to="..\\b.jpg"), r"\[1\]"),
    "file name absolute": (_change(*VIDEO, "file_names", 1, to="/etc/passwd"), r"\[1\]"),
    "file name drive": (_change(*VIDEO, "file_names", 1, to="C:\\a.jpg"), r"\[1\]"),
    "file name with a zero": (_change(*VIDEO, "file_names", 1, to="a\0.jpg"), r"\[1\]"),
    "file name surrogate": (_change(*VIDEO, "file_names", 1, to="a\ud800.jpg"), r"\[1\]"),
    "file name endless": (_change(*VIDEO, "file_names", 1, to="a" * 5000), r"\[1\]"),
    "length wrong": (_change(*VIDEO, "length", to=7), r"\.length must be 3.*got 7"),
    "length text": (_change(*VIDEO, "length", to="3"), r"\.length"),
    "length float": (_change(*VIDEO, "length", to=3.0), r"\.length"),
    "categories absent": (_delete("categories"), "'categories'"),
    "categories empty": (_change("categories", to=[]), "'categories'"),
    "category id twice": (_duplicate("categories"), r"categories\[3\] \(id 3\)\.id"),
    "category id text": (_change("categories", 0, "id", to="3"), r"categories\[0\]\.id"),
    "category without name": (_delete("categories", 0, "name"), r"categories\[0\] \(id 3\)\.name"),
    "category name empty": (_change("categories", 0, "name", to=""), r"\.name"),
    "category name number": (_change("categories", 0, "name", to=4), r"\.name"),
    "category name twice": (_change("categories", 0, "name", to="dog"), r"\.name must be unique"),
    "annotations text": (_change("annotations", to="x"), "'annotations'"),
    "annotation null": (_change(*TRACK, to=None), r"annotations\[2\]"),
    "annotation id twice": (_duplicate("annotations"), r"annotations\[4\] \(id 10\)\.id"),
    "annotation id absent": (_delete(*TRACK, "id"), r"annotations\[2\]\.id"),
    "annotation id text": (_change(*TRACK, "id", to="a"), r"annotations\[2\]\.id .*'a'"),
    "annotation id negative": (_change(*TRACK, "id", to=-1), r"annotations\[2\]"),
    "video unknown": (_change(*TRACK, "video_id", to=9), r"\(id 20\)\.video_id .*9"),
    "video absent": (_delete(*TRACK, "video_id"), r"\.video_id"),
    "category unknown": (_change(*TRACK, "category_id", to=4), r"\(id 20\)\.category_id .*4"),
    "category absent": (_delete(*TRACK, "category_id"), r"\.category_id"),
    "category list": (_change(*TRACK, "category_id", to=[3]), r"\.category_id"),
    "iscrowd 2": (_change(*TRACK, "iscrowd", to=2), r"\.iscrowd .*2"),
    "iscrowd text": (_change(*TRACK, "iscrowd", to="0"), r"\.iscrowd"),
    "boxes absent": (_delete(*BOXES), r"annotations\[2\] \(id 20\)\.bboxes .* nothing"),
    "boxes text": (_change(*BOXES, to="abc"), r"\.bboxes"),
    "boxes too few": (
        _change(*BOXES, to=[[1, 2, 3, 4], None]),
        r"\(id 20\)\.bboxes has 2 entries, but video 2 has 3 frames.*null",
    ),
    "boxes too many": (_change(*BOXES, to=[None] * 4), "4 entries"),
    "box of 3 numbers": (_change(*BOXES, 1, to=[1, 2, 3]), r"\.bboxes\[1\] .*\[1, 2, 3\]"),
    "box of 5 numbers": (_change(*BOXES, 1, to=[1, 2, 3, 4, 5]), r"\.bboxes\[1\]"),
    "box an object": (_change(*BOXES, 1, to={"x": 1}), r"\.bboxes\[1\]"),
    "box of text": (_change(*BOXES, 1, to=["1", 2, 3, 4]), r"\.bboxes\[1\]"),
    "box of booleans": (_change(*BOXES, 1, to=[True, 2, 3, 4]), r"\.bboxes\[1\]"),
    "box with null": (_change(*BOXES, 1, to=[None, 2, 3, 4]), r"\.bboxes\[1\]"),
    "box NaN": (_change(*BOXES, 1, to=[1, NAN, 3, 4]), r"\.bboxes\[1\] .*nan"),
    "box infinite": (_change(*BOXES, 1, to=[1, 2, INF, 4]), r"\.bboxes\[1\] .*inf"),
    "box beyond float": (_change(*BOXES, 1, to=[1, 2, 10**400, 4]), r"\.bboxes\[1\]"),
    "box negative width": (_change(*BOXES, 1, to=[9, 2, -3, 4]), r"\.bboxes\[1\] .*negative"),
    "box negative height": (_change(*BOXES, 1, to=[9, 9, 3, -4]), r"\.bboxes\[1\]"),
    "box outside right": (_change(*BOXES, 1, to=[30, 2, 3, 4]), r"\.bboxes\[1\] .*inside"),
    "box outside above": (_change(*BOXES, 1, to=[3, -9, 3, 4]), r"\.bboxes\[1\] .*30 x 20"),
    "box far outside": (_change(*BOXES, 1, to=[1e308, 0, 1e308, 4]), r"\.bboxes\[1\]"),
    "areas too few": (_change(*TRACK, "areas", to=[1]), r"\.areas has 1 entries"),
    "areas text": (_change(*TRACK, "areas", to=["a", 1, 2]), r"\.areas\[0\]"),
    "areas negative": (_change(*TRACK, "areas", to=[1, -1, 2]), r"\.areas\[1\]"),
    "areas NaN": (_change(*TRACK, "areas", to=[1, 1, NAN]), r"\.areas\[2\]"),
    "masks text": (_change(*TRACK, "segmentations", to="a"), r"\.segmentations"),
    "masks too few": (_change(*TRACK, "segmentations", to=[None]), r"\.segmentations has 1"),
    "mask a number": (
        _change(*TRACK, "segmentations", to=[None, 5, None]),
        r"annotations\[2\] \(id 20\)\.segmentations\[1\]",
    ),
    "mask of another size": (
        _change(*TRACK, "segmentations", to=[None, rectangle(1, 1, 2, 2, (30, 20)), None]),
        r"\.segmentations\[1\]: 'size' must be \[20, 30\], got \[30, 20\]",
    ),
    "mask broken": (
        _change(*TRACK, "segmentations", to=[{"size": [20, 30], "counts": "o"}, None, None]),
        r"\.segmentations\[0\]: 'counts'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_field_is_refused_with_file_id_and_field(tmp_path, case):
    mutate, pattern = REFUSED[case]
    content = plain_content()
    mutate(content)
    path = write_json(tmp_path, content)
    with pytest.raises(DataError, match=pattern) as error:
        load_ytvis_json(path, "root")
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value)) < 600


BAD_FILES = {
    "empty": b"",
    "text": b"hello",
    "cut": b'{"videos": [{"id": 1, "file',
    "list": b"[]",
    "number": b"3",
    "null": b"null",
    "not unicode": b'{"a": "\xff\xfe\xfa"}',
    "nested brackets": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
    "key twice": b'{"videos": [], "videos": []}',
    "endless number": b'{"videos": ' + b"1" * 10_000 + b"}",
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_file_that_is_no_json_object_is_refused(tmp_path, case):
    path = tmp_path / "bad.json"
    path.write_bytes(BAD_FILES[case])
    with pytest.raises(DataError, match=r"bad\.json: "):
        load_ytvis_json(str(path), "root")


def test_values_nested_deeply_are_refused_without_a_recursion_error(tmp_path):
    content = json.dumps(plain_content()).replace("[4, 3, 8, 6]", "[" * 300 + "]" * 300)
    path = tmp_path / "deep.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"bboxes\[2\]"):
        load_ytvis_json(str(path), "root")


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json.*DETECTRON2_DATASETS"):
        load_ytvis_json(str(tmp_path / "absent.json"), "root")
    with pytest.raises(DataError, match="cannot be read"):
        load_ytvis_json(str(tmp_path), "root")


def test_file_beyond_the_size_limit_is_refused_before_it_is_read(tmp_path):
    path = write_json(tmp_path, plain_content())
    with pytest.raises(DataError, match="at most 100 bytes"):
        read_json(path, max_bytes=100)


def test_too_many_categories_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(categories, "MAX_CATEGORIES", 2)
    with pytest.raises(DataError, match=r"'categories' must have 1\.\.2"):
        _load(tmp_path, plain_content())


def _paths(value, prefix=()):
    yield prefix
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*prefix, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from _paths(value[index], (*prefix, index))


_ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.integers(-5, 50), st.floats(), st.none()), max_size=6),
    st.dictionaries(st.sampled_from(["id", "size", "counts", "x"]), st.integers(), max_size=3),
)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_mutated_file_is_refused_or_gives_sound_dicts(tmp_path, data):
    content = plain_content((2, 1), masks=data.draw(st.booleans()))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([p for p in _paths(content) if p]))
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        if data.draw(st.booleans()):
            parent[path[-1]] = data.draw(_ODD_VALUES)
        elif isinstance(parent, list) and data.draw(st.booleans()):
            parent.append(copy.deepcopy(parent[path[-1]]))
        else:
            del parent[path[-1]]
    path = write_json(tmp_path, content)
    try:
        videos = load_ytvis_json(path, "root")
    except DataError as error:
        message = str(error)
        videos = None
    if videos is None:
        assert message.startswith(path)
        return
    for video in videos:
        length = video["length"]
        assert len(video["file_names"]) == len(video["annotations"]) == length
        for frame in video["annotations"]:
            assert len({item["id"] for item in frame}) == len(frame)
            for item in frame:
                x, y, w, h = item["bbox"]
                assert w > 0 < h
                assert 0 <= x < x + w <= video["width"] + 1e-6
                assert 0 <= y < y + h <= video["height"] + 1e-6
                assert 0 <= item["category_id"] < len(content["categories"])
                if "segmentation" in item:
                    mask = mask_util.decode(item["segmentation"])
                    assert mask.shape == (video["height"], video["width"])


# --- metadata and registration -------------------------------------------------------------------


def test_loading_twice_under_a_name_sets_equal_metadata(tmp_path):
    name = unique_name()
    for _ in range(2):
        _load(tmp_path, plain_content(), name)
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_classes == ["cat", "dog", "emu"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1, 9: 2}


def test_metadata_may_differ_in_case_but_not_in_classes(tmp_path):
    name = unique_name()
    MetadataCatalog.get(name).thing_classes = ["Cat", "DOG", "E mu"]
    _load(tmp_path, plain_content(), name)
    assert MetadataCatalog.get(name).thing_classes == ["Cat", "DOG", "E mu"]
    content = plain_content()
    content["categories"][2]["name"] = "yak"
    with pytest.raises(DataError, match=rf"categories.*yak.*{name}.*INPUT\.DATASETS"):
        _load(tmp_path, content, name)


def test_metadata_of_other_ids_is_refused(tmp_path):
    name = unique_name()
    _load(tmp_path, plain_content(), name)
    content = plain_content()
    content["categories"][2]["id"] = 12
    with pytest.raises(DataError, match="name of its own"):
        _load(tmp_path, content, name)


def test_register_makes_a_data_set_of_one_line(tmp_path):
    content = plain_content()
    json_file, root = write_json(tmp_path, content), str(tmp_path)
    name = unique_name()
    register_ytvis_instances(name, {"note": "mine"}, json_file, root)
    register_ytvis_instances(name, {"note": "mine"}, json_file, root)
    assert len(DatasetCatalog.get(name)) == 2
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "ytvis"
    assert (metadata.json_file, metadata.image_root) == (json_file, root)
    assert metadata.note == "mine"
    assert metadata.thing_classes == ["cat", "dog", "emu"]


def test_register_refuses_a_name_that_is_taken(tmp_path):
    name = unique_name()
    register_ytvis_instances(name, {}, "a.json", "frames")
    with pytest.raises(ConfigError, match=rf"{name}.*a\.json.*b\.json.*another name"):
        register_ytvis_instances(name, {}, "b.json", "frames")
    with pytest.raises(ConfigError, match="not empty"):
        register_ytvis_instances("", {}, "b.json", "frames")


# --- frames --------------------------------------------------------------------------------------
