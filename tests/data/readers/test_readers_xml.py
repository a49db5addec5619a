"""CVAT and Label Studio: keyframes, turned boxes, CVAT's own runs, hostile XML."""

from __future__ import annotations

import json

import numpy as np
import pytest

from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.rle import decode_rle

META = """<meta><task><id>1</id><name>walk.mp4</name><size>{size}</size><mode>interpolation</mode>
<start_frame>{start}</start_frame><stop_frame>{stop}</stop_frame><frame_filter>{step}</frame_filter>
<labels><label><name>car</name><attributes></attributes></label></labels>
<original_size><width>40</width><height>30</height></original_size></task></meta>"""


def _xml(tmp_path, tracks, size=6, start=0, stop=5, step=""):
    meta = META.format(size=size, start=start, stop=stop, step=step)
    path = tmp_path / "annotations.xml"
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{meta}{tracks}'
        "</annotations>"
    )
    return str(path)


def _box(frame, x, outside=0, more=""):
    return (
        f'<box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" xtl="{x}" ytl="4"'
        f' xbr="{x + 8}" ybr="10" {more}></box>'
    )


def _one(path, **options):
    (video,) = read_annotations("cvat", path, ReadOptions(**options))
    return video


def test_cvat_box_moves_between_keyframes_and_ends_outside(tmp_path):
    shapes = _box(0, 0) + _box(3, 6) + _box(4, 6, outside=1)
    video = _one(_xml(tmp_path, f'<track id="7" label="car">{shapes}</track>'))
    (track,) = video.tracks
    assert track.id == 7
    assert {t: box[0] for t, box in track.boxes.items()} == {0: 0, 1: 2, 2: 4, 3: 6}
    assert (video.name, video.height, video.width) == ("walk", 30, 40)
    assert video.file_names[2] == "walk/frame_000002.png"


def test_cvat_last_keyframe_stands_until_the_end(tmp_path):
    video = _one(_xml(tmp_path, f'<track id="0" label="car">{_box(4, 1)}</track>'))
    assert set(video.tracks[0].boxes) == {4, 5}


def test_cvat_occluded_and_rotation(tmp_path):
    shape = _box(0, 10, more='rotation="90"').replace('occluded="0"', 'occluded="1"')
    dataset = read_annotations(
        "cvat", _xml(tmp_path, f'<track id="0" label="car">{shape}{_box(1, 1, 1)}</track>')
    )
    (video,) = dataset
    assert video.tracks[0].boxes[0] == pytest.approx((11, 3, 6, 8))
    assert video.tracks[0].occluded == {0}
    assert dataset.notes["rotated boxes replaced by the upright box around them"] == 1


def test_cvat_mask_runs_go_row_by_row_in_their_rectangle(tmp_path):
    shape = '<mask frame="0" outside="0" occluded="0" keyframe="1" rle="1, 2, 1, 2" left="5"'
    shape += ' top="3" width="3" height="2"></mask>'
    track = f'<track id="0" label="car">{shape}{_box(1, 0, 1)}</track>'
    mask = decode_rle(_one(_xml(tmp_path, track)).tracks[0].masks[0])
    expected = np.zeros((30, 40), dtype=bool)
    expected[3, 6:8] = expected[4, 6:8] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('rle="1, 2"', "must sum to width x height = 6, got 3"),
        ('rle="1, x"', "numbers with commas"),
        ('left="39"', "must lie in the frame of 40 x 30"),
        ('left="1.5"', "must be an integer"),
    ],
)
def test_cvat_mask_that_cannot_be_right_is_refused(tmp_path, change, message):
    shape = {"rle": '"1, 2, 1, 2"', "left": '"5"', "top": '"3"', "width": '"3"', "height": '"2"'}
    key, value = change.split("=")
    text = " ".join(f"{k}={v}" for k, v in {**shape, key: value}.items())
    track = f'<track id="0" label="car"><mask frame="0" {text}></mask></track>'
    with pytest.raises(DataError, match=message):
        _one(_xml(tmp_path, track))


def test_cvat_polygon_moves_where_points_match_and_is_held_elsewhere(tmp_path):
    def polygon(frame, points):
        return f'<polygon frame="{frame}" outside="0" occluded="0" points="{points}"></polygon>'

    shapes = polygon(0, "0,0;4,0;4,4;0,4") + polygon(2, "8,0;12,0;12,4;8,4")
    shapes += polygon(4, "8,0;12,0;10,4") + _box(5, 0, 1)
    dataset = read_annotations(
        "cvat", _xml(tmp_path, f'<track id="0" label="car">{shapes}</track>')
    )
    (video,) = dataset
    lefts = {t: box[0] for t, box in video.tracks[0].boxes.items()}
    assert lefts == {0: 0, 1: 4, 2: 8, 3: 8, 4: 8}
    assert sum(count for what, count in dataset.notes.items() if "held" in what) == 1


def test_cvat_frames_of_a_task_with_start_and_step(tmp_path):
    shapes = _box(10, 0) + _box(20, 4) + _box(25, 4, 1)
    path = _xml(tmp_path, f'<track id="0" label="car">{shapes}</track>', 4, 10, 25, "step=5")
    video = _one(path)
    assert {t: box[0] for t, box in video.tracks[0].boxes.items()} == {0: 0, 1: 2, 2: 4}
    assert video.file_names[1] == "walk/frame_000015.png"
    path = _xml(tmp_path, f'<track id="0" label="car">{_box(12, 0)}</track>', 4, 10, 25, "step=5")
    with pytest.raises(DataError, match=r"must be in 10..25 in steps of 5"):
        _one(path)


def test_cvat_image_mode_gives_a_video_for_each_image(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(
        '<annotations><image id="0" name="sub/p.jpg" width="20" height="10">'
        '<box label="cat" xtl="1" ytl="2" xbr="5" ybr="6" occluded="0"/>'
        '<polyline label="road" points="0,0;1,1" occluded="0"/></image></annotations>'
    )
    dataset = read_annotations("cvat", str(path))
    (video,) = dataset
    assert (video.file_names, video.tracks[0].boxes) == (["sub/p.jpg"], {0: (1, 2, 4, 4)})
    assert sum(dataset.notes.values()) == 1  # the polyline


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY x "y">]><annotations>&x;</annotations>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations></annotations>',
        "<!DOCTYPE annotations><annotations></annotations>",
    ],
)
def test_cvat_refuses_a_document_type(tmp_path, text):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError, match="DOCTYPE, ENTITY"):
        read_annotations("cvat", str(path))


def test_cvat_names_what_is_no_cvat_file(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<html></html>")
    with pytest.raises(DataError, match="outermost element must be <annotations>"):
        read_annotations("cvat", str(path))
    path.write_text("<annotations><track>")
    with pytest.raises(DataError, match="label must have"):
        read_annotations("cvat", str(path))
    path.write_bytes(b"<annotations>\xff\xfe</annotations>")
    with pytest.raises(DataError, match="line 1: expected XML"):
        read_annotations("cvat", str(path))


def _tasks(tmp_path, sequence, **value):
    result = {
        "id": "abc",
        "type": "videorectangle",
        "value": {"framesCount": 6, "sequence": sequence, "labels": ["cat"], **value},
    }
    other = {"id": "d", "type": "choices", "value": {}}
    skipped = {"was_cancelled": True, "result": [result]}
    tasks = [
        {
            "data": {"video": "/data/upload/3/ab12-walk.mp4?x=1"},
            "annotations": [skipped, {"result": [result, other]}],
        }
    ]
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(tasks))
    return str(path)


def _key(frame, x, enabled=True, rotation=0):
    sides = {"x": x, "y": 20, "width": 10, "height": 50}
    return {"frame": frame, "enabled": enabled, "rotation": rotation, **sides}


def test_labelstudio_counts_from_1_in_per_cent_and_ends_when_disabled(tmp_path):
    path = _tasks(tmp_path, [_key(1, 0), _key(3, 20, enabled=False), _key(5, 40)])
    dataset = read_annotations("labelstudio", path, ReadOptions(size=(10, 200)))
    (video,) = dataset
    assert video.name == "ab12-walk"
    boxes = video.tracks[0].boxes
    assert boxes[0] == (0, 2, 20, 5)
    assert {t: box[0] for t, box in boxes.items()} == {0: 0, 1: 20, 2: 40, 4: 80, 5: 80}
    assert dataset.notes["results that are no video rectangle left out"] == 1
    assert dataset.notes["skipped annotations of tasks left out"] == 1
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    (tmp_path / "task.json").write_text(json.dumps(task))  # as the interface shows one
    path = str(tmp_path / "task.json")
    (again,) = read_annotations("labelstudio", path, ReadOptions(size=(10, 200)))
    assert again.tracks[0].boxes == boxes


def test_labelstudio_turned_box_gives_the_upright_one_around_it(tmp_path):
    path = _tasks(tmp_path, [_key(1, 50, rotation=90)], framesCount=1)
    (video,) = read_annotations("labelstudio", path, ReadOptions(size=(100, 100)))
    # 10 x 50 about its top left corner (50, 20): it lies to the left of it
    assert video.tracks[0].boxes[0] == pytest.approx((0, 20, 50, 10))


def test_labelstudio_needs_the_size_and_the_full_export(tmp_path):
    path = _tasks(tmp_path, [_key(1, 0)])
    with pytest.raises(DataError, match="--size WIDTHxHEIGHT"):
        list(read_annotations("labelstudio", path))
    (tmp_path / "min.json").write_text('[{"video": "a.mp4", "box": []}]')
    with pytest.raises(DataError, match="not 'JSON_MIN'"):
        read_annotations("labelstudio", str(tmp_path / "min.json"))
