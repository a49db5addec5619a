"""COCO, COCO video, BURST, TAO, BDD100K, SA-V and LabelMe: fields, frames, crowds, odd forms."""

from __future__ import annotations

import copy
import json

import pytest

from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.errors import DataError
from tests.helpers.annotations import write_files
from tests.helpers.videos import HEIGHT, WIDTH, plain_content, rectangle

SIZE = {"width": WIDTH, "height": HEIGHT}


def _read(name, folder, content, **options):
    (folder / "a.json").write_text(json.dumps(content))
    return read_annotations(name, str(folder / "a.json"), ReadOptions(**options))


def _coco(**annotation):
    entry = {"id": 4, "image_id": 3, "category_id": 9, "bbox": [2, 3, 8, 6], **annotation}
    image = {"id": 3, "file_name": "d/p.jpg", **SIZE}
    return {"images": [image], "categories": [{"id": 9, "name": "cat"}], "annotations": [entry]}


def test_ytvis_keeps_ids_scores_and_crowds(tmp_path):
    content = plain_content(masks=True)
    content["annotations"][0].update(iscrowd=1, score=0.25)
    dataset = _read("ytvis", tmp_path, content)
    first, second = dataset
    assert [t.id for t in first.tracks + second.tracks] == [10, 11, 20, 21]
    assert (first.tracks[0].is_crowd, first.tracks[0].score) == (True, 0.25)
    assert dataset.categories == {3: "cat", 7: "dog", 9: "emu"}
    assert first.name == "v1"
    assert not any(dataset.notes.values())


def test_coco_picture_is_a_video_of_one_frame_with_its_ids(tmp_path):
    (video,) = _read("coco", tmp_path, _coco(iscrowd=1, segmentation=[]))
    assert (video.id, video.name, video.file_names) == (3, "d/p", ["d/p.jpg"])
    (track,) = video.tracks
    assert (track.id, track.boxes, track.masks, track.is_crowd) == (
        4,
        {0: (2, 3, 8, 6)},
        {},
        True,
    )


def test_coco_takes_uncompressed_counts_as_cvat_exports_them(tmp_path):
    runs = [2 * HEIGHT + 3, 6, HEIGHT - 6, 6]
    counts = [*runs, HEIGHT * WIDTH - sum(runs)]
    mask = {"size": [HEIGHT, WIDTH], "counts": counts}
    (video,) = _read("coco", tmp_path, _coco(segmentation=mask, bbox=[]))
    assert video.tracks[0].boxes == {0: (2, 3, 2, 6)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [2, 3, 8]}, r"annotations\[0\] \(id 4\).bbox: a box must be 4 finite numbers"),
        ({"bbox": [2, 3, -8, 1]}, "must not be negative"),
        ({"bbox": [40, 3, 60, 9]}, "not corners"),
        ({"image_id": 7}, "image_id must be the id of an entry of 'images'"),
        ({"category_id": 1}, "category_id must be the id"),
        ({"iscrowd": 2}, "iscrowd must be 0 or 1"),
        ({"segmentation": [[1, 1, 1e9, 1, 1, 2]]}, "finite numbers within"),
        ({"segmentation": {"size": [1, 1], "counts": "1"}}, "'size' must be"),
    ],
)
def test_coco_annotation_that_cannot_be_right_is_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        list(_read("coco", tmp_path, _coco(**change)))


def _coco_video(track="track_id", frame="frame_id", start=0):
    images = [
        {"id": t + 1, "video_id": 5, frame: start + 3 * t, "file_name": f"w/{9 - t}.jpg", **SIZE}
        for t in range(3)
    ]
    boxes = [(1, 8), (1, 2), (3, 8)]
    annotations = [
        {"id": i, "image_id": image, "category_id": 9, track: key, "bbox": [i, 1, 4, 4]}
        for i, (image, key) in enumerate(boxes)
    ]
    categories = [{"id": 9, "name": "cat"}]
    videos = [{"id": 5, "name": "walk"}]
    return {
        "videos": videos,
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


@pytest.mark.parametrize("track", ["track_id", "instance_id"])
@pytest.mark.parametrize(("frame", "start"), [("frame_id", 0), ("frame_index", 1)])
def test_coco_video_orders_frames_by_their_number(tmp_path, track, frame, start):
    (video,) = _read("coco-video", tmp_path, _coco_video(track, frame, start))
    assert (video.name, video.file_names) == ("walk", ["w/9.jpg", "w/8.jpg", "w/7.jpg"])
    assert {t.id: set(t.boxes) for t in video.tracks} == {8: {0, 2}, 2: {0}}


def test_coco_video_of_cvat_has_tracks_in_attributes_and_videos_in_folders(tmp_path):
    content = _coco_video()
    del content["videos"]
    for image in content["images"]:
        del image["video_id"], image["frame_id"]
    for entry in content["annotations"]:
        entry["attributes"] = {"track_id": entry.pop("track_id"), "occluded": True}
    (video,) = _read("coco-video", tmp_path, content)
    assert (video.name, video.file_names) == ("w", ["w/7.jpg", "w/8.jpg", "w/9.jpg"])
    assert {t.id: t.occluded for t in video.tracks} == {8: {0, 2}, 2: {2}}


def test_coco_video_errors_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match="--from coco"):
        _read("coco-video", tmp_path, _coco(bbox=[1, 1, 2, 2]))
    content = _coco_video()
    content["annotations"][1]["track_id"] = 8
    with pytest.raises(DataError, match="is in frame 0 twice"):
        list(_read("coco-video", tmp_path, content))
    content = _coco_video()
    content["images"][1]["frame_id"] = 0
    with pytest.raises(DataError, match=r"images\[1\] .*unique in its video"):
        _read("coco-video", tmp_path, content)
    with pytest.raises(DataError, match="format 'ytvis'"):
        _read("coco", tmp_path, plain_content())


def test_tao_takes_the_class_from_the_track(tmp_path):
    content = _coco_video(frame="frame_index")
    for entry in content["annotations"]:
        del entry["category_id"]
    content["tracks"] = [{"id": 8, "category_id": 9}, {"id": 2, "category_id": 9}]
    dataset = _read("burst", tmp_path, content)
    assert sorted(t.id for video in dataset for t in video.tracks) == [2, 8]
    del content["tracks"][0]
    with pytest.raises(DataError, match="'tracks'"):
        _read("burst", tmp_path, content)


def test_burst_unknown_class_of_a_track_is_named(tmp_path):
    sequence = {
        "id": 1,
        "seq_name": "s",
        "dataset": "HACS",
        **SIZE,
        "annotated_image_paths": ["f3.jpg"],
        "track_category_ids": {"7": 9},
        "segmentations": [{"7": {"rle": rectangle(1, 2, 3, 4)["counts"], "is_gt": True}}],
    }
    content = {"sequences": [sequence], "categories": [{"id": 9, "name": "cat"}]}
    (video,) = _read("burst", tmp_path, content)
    assert (video.file_names, video.tracks[0].id) == (["HACS/s/f3.jpg"], 7)
    assert video.tracks[0].boxes == {0: (1, 2, 3, 4)}
    broken = copy.deepcopy(content)
    broken["sequences"][0]["track_category_ids"] = {}
    broken["categories"].append({"id": 2, "name": "dog"})
    with pytest.raises(DataError, match=r"track_category_ids\['7'\] must be the id"):
        list(_read("burst", tmp_path, broken))


def _frame(**label):
    return {"name": "a-2.jpg", "videoName": "a", "frameIndex": 1, "labels": [label]}


def test_bdd100k_box_has_its_last_pixel_and_frames_their_order(tmp_path):
    box = {"x1": 10, "y1": 20, "x2": 19, "y2": 24}
    label = {"id": "00012", "category": "car", "box2d": box, "attributes": {"occluded": True}}
    first = {**_frame(**label), "name": "a-1.jpg", "frameIndex": 0, "labels": None}
    dataset = _read("bdd100k", tmp_path, [_frame(**label), first])
    (video,) = dataset
    assert (video.height, video.width) == (720, 1280)
    assert video.file_names == ["a/a-1.jpg", "a/a-2.jpg"]
    (track,) = video.tracks
    assert (track.id, track.boxes, track.occluded) == (12, {1: (10, 20, 10, 5)}, {1})


def test_scalabel_config_says_size_and_classes_and_curves_are_left_out(tmp_path):
    square = [[1, 1], [5, 1], [5, 5], [1, 5]]
    polygons = [
        {"vertices": square, "types": "LLLL", "closed": True},
        {"vertices": square, "types": "LCCL", "closed": True},
    ]
    config = {"imageSize": SIZE, "categories": [{"name": "bus"}, {"name": "car"}]}
    content = {"frames": [_frame(id=3, category="car", poly2d=polygons)], "config": config}
    dataset = _read("bdd100k", tmp_path, content)
    (video,) = dataset
    assert dataset.categories == {1: "bus", 2: "car"}
    assert (video.height, video.width) == (HEIGHT, WIDTH)
    assert video.tracks[0].boxes == {0: (1, 1, 4, 4)}
    content["frames"][0].update(videoName=None, frameIndex=None, attributes=None)
    assert [video.name for video in _read("bdd100k", tmp_path, content)] == ["a"]
    assert dataset.notes["polygons with curves left out"] == 1


def _sa_v(count=9, annotated=3):
    present, absent = rectangle(1, 2, 3, 4), rectangle(0, 0, 0, 0)
    return {
        "video_id": "sav_000001",
        "video_frame_count": float(count),
        "video_height": float(HEIGHT),
        "video_width": float(WIDTH),
        "masklet": [[present, absent if t else present] for t in range(annotated)],
        "masklet_id": [0, 6],
    }


def test_sa_v_annotates_every_fourth_frame(tmp_path):
    write_files(tmp_path, {"sav_000001_manual.json": json.dumps(_sa_v()).encode()})
    (video,) = read_annotations("sa-v", str(tmp_path))
    assert video.name == "sav_000001"
    assert video.file_names == [f"sav_000001/{t:05d}.jpg" for t in (0, 4, 8)]
    assert {t.id: set(t.boxes) for t in video.tracks} == {0: {0, 1, 2}, 6: {0}}
    (video,) = _read("sa-v", tmp_path, _sa_v(3))
    assert video.file_names[2] == "sav_000001/00002.jpg"
    with pytest.raises(DataError, match="video_frame_count must be a count"):
        list(_read("sa-v", tmp_path, _sa_v(11, 8)))


def _labelme(shapes):
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"shapes": shapes, "imagePath": "..\\img\\7.jpg", **size}


def test_labelme_shapes_of_a_group_are_parts_of_one_object(tmp_path):
    left = {"label": "cat", "group_id": 4, "shape_type": "polygon"}
    left["points"] = [[1, 1], [5, 1], [5, 5], [1, 5]]
    right = {**left, "points": [[10, 1], [14, 1], [14, 5], [10, 5]]}
    alone = {**left, "group_id": None, "shape_type": "rectangle", "points": [[9, 9], [4, 6]]}
    line = {**left, "shape_type": "line", "points": [[0, 0], [1, 1]]}
    (tmp_path / "walk").mkdir()
    (tmp_path / "walk" / "1.json").write_text(json.dumps(_labelme([left, right, alone, line])))
    dataset = read_annotations("labelme", str(tmp_path))
    (video,) = dataset
    assert video.file_names == ["walk/7.jpg"]
    assert [track.boxes for track in video.tracks] == [{0: (1, 1, 13, 4)}, {0: (4, 6, 5, 3)}]
    assert dataset.notes["shapes without group_id, each read as a track of one frame"] == 1
    assert dataset.notes["shapes that are no polygon, rectangle, circle or mask left out"] == 1
