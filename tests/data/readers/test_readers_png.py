"""DAVIS, YouTube-VOS and KITTI MOTS: pixel values, void, ignored regions, sizes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.errors import DataError
from tests.helpers.annotations import png, write_files


def _pixels(*values, dtype=np.uint8):
    pixels = np.zeros((6, 8), dtype=dtype)
    for i, value in enumerate(values):
        pixels[1:4, 2 * i : 2 * i + 2] = value
    return png(pixels)


def _read(name, folder, **options):
    return read_annotations(name, str(folder), ReadOptions(**options))


def test_davis_2016_has_one_object_of_255(tmp_path):
    files = {f"Annotations/480p/bear/{t:05d}.png": _pixels(255 if t else 0) for t in range(3)}
    write_files(tmp_path, files)
    dataset = _read("davis", tmp_path)
    (video,) = dataset
    assert (video.name, video.file_names[1]) == ("bear", "bear/00001.jpg")
    assert [(t.id, t.boxes) for t in video.tracks] == [(1, {1: (0, 1, 2, 3), 2: (0, 1, 2, 3)})]


def test_davis_2017_has_an_object_for_each_index_and_255_is_void(tmp_path):
    write_files(tmp_path, {"a/0.png": _pixels(1, 2, 255), "b/0.png": _pixels(3)})
    dataset = _read("davis", tmp_path)
    first, second = dataset
    assert [t.id for t in first.tracks + second.tracks] == [1, 2, 3]
    assert dataset.notes["frames with void pixels (255), which belong to no object"] == 1


def test_one_folder_of_masks_is_a_video_of_its_name(tmp_path):
    write_files(tmp_path, {"a/0.png": _pixels(1)})
    assert [video.name for video in _read("davis", tmp_path / "a")] == ["a"]
    assert [video.name for video in _read("davis", tmp_path)] == ["a"]


def test_masks_need_an_index_one_size_and_a_frame(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0\.png: expected masks with a palette.*'RGB'"):
        list(_read("davis", tmp_path))
    (tmp_path / "0.png").write_bytes(_pixels(1))
    (tmp_path / "1.png").write_bytes(png(np.zeros((5, 8), np.uint8)))
    with pytest.raises(DataError, match=r"1\.png: expected 8 x 6 pixels"):
        list(_read("davis", tmp_path))
    with pytest.raises(DataError, match="there is no frame of this name"):
        list(_read("davis", tmp_path, images=str(tmp_path / "none")))
    (tmp_path / "1.png").write_bytes(_pixels(1)[:45])
    with pytest.raises(DataError, match=r"1\.png: expected a PNG file"):
        list(_read("davis", tmp_path))


def test_youtube_vos_names_the_classes_of_objects(tmp_path):
    objects = {"1": {"category": "fox"}, "2": {"category": "cat"}}
    meta = {"videos": {"a": {"objects": objects}}}
    write_files(
        tmp_path,
        {
            "meta.json": json.dumps(meta).encode(),
            "Annotations/a/00005.png": _pixels(2, 1),
            "Annotations/b/00000.png": _pixels(7),
        },
    )
    dataset = _read("youtube-vos", tmp_path)
    first, second = dataset
    names = {track.id: dataset.categories[track.category_id] for track in first.tracks}
    assert names == {1: "fox", 2: "cat"}
    assert dataset.categories[second.tracks[0].category_id] == "object"
    assert first.file_names == ["a/00005.jpg"]
    (tmp_path / "Annotations/a/00005.png").write_bytes(_pixels(3))
    with pytest.raises(DataError, match="has an object 3 in its masks"):
        list(_read("youtube-vos", tmp_path))


def test_kitti_mots_pixels_are_class_and_instance(tmp_path):
    values = _pixels(1005, 2001, 10000, dtype=np.uint16)
    write_files(tmp_path, {"instances/0002/000000.png": values})
    dataset = _read("kitti-mots", tmp_path / "instances")
    (video,) = dataset
    assert [(t.id, dataset.categories[t.category_id]) for t in video.tracks] == [
        (1005, "car"),
        (2001, "pedestrian"),
    ]
    assert video.file_names == ["0002/000000.png"]
    assert dataset.notes["ignored regions left out"] == 1
    write_files(tmp_path, {"instances/0002/000000.png": _pixels(3001, dtype=np.uint16)})
    with pytest.raises(DataError, match="got 3001"):
        list(_read("kitti-mots", tmp_path / "instances"))
    write_files(tmp_path, {"instances/labels.txt": b"cat\ndog\nemu"})
    dataset = _read("kitti-mots", tmp_path / "instances")
    assert [dataset.categories[t.category_id] for v in dataset for t in v.tracks] == ["emu"]


def test_sa_v_masks_have_a_folder_for_each_object(tmp_path):
    files = {
        "Annotations_6fps/sav_1/000/00000.png": _pixels(1),
        "Annotations_6fps/sav_1/000/00004.png": _pixels(0),
        "Annotations_6fps/sav_1/002/00004.png": _pixels(0, 255),
    }
    write_files(tmp_path, files)
    (video,) = _read("sa-v", tmp_path)
    assert (video.name, video.file_names) == ("sav_1", ["sav_1/00000.jpg", "sav_1/00004.jpg"])
    boxes = {track.id: track.boxes for track in video.tracks}
    assert boxes == {0: {0: (0, 1, 2, 3)}, 2: {1: (2, 1, 2, 3)}}
    write_files(tmp_path, {"Annotations_6fps/sav_1/002/00008.png": png(np.ones((3, 3), np.uint8))})
    with pytest.raises(DataError, match=r"00008\.png: expected 8 x 6 pixels"):
        list(_read("sa-v", tmp_path))
    write_files(tmp_path, {"Annotations_6fps/a/0.png": _pixels(1)})
    with pytest.raises(DataError, match="--from davis"):
        _read("sa-v", tmp_path)
