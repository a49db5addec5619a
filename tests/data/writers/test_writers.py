"""What the writers put into files beyond what comes back: layouts, palettes, overlaps, ids, XML."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfreevis_ext.data.annotation_form import Track, Video
from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.data.writers.cvat import outline, runs_of_mask
from maskfreevis_ext.data.writers.davis import davis_palette
from maskfreevis_ext.data.writers.json_lists import json_lists
from maskfreevis_ext.errors import DataError
from tests.helpers.annotations import make_set, mask_of, plain, tight, written


def _mask(x, y, w, h, shape=(8, 10)):
    pixels = np.zeros(shape, dtype=bool)
    pixels[y : y + h, x : x + w] = True
    return mask_of(pixels)


def _track(number, masks, category=1, **more):
    boxes = {t: tight(mask) for t, mask in masks.items()}
    return Track(number, category, boxes=boxes, masks=masks, **more)


def _video(*tracks, name="a/b", frames=2):
    return Video(1, name, 8, 10, [f"{name}/{t:05d}.jpg" for t in range(frames)], list(tracks))


def test_davis_puts_the_smaller_of_overlapping_masks_on_top(tmp_path):
    large, small = _mask(0, 0, 8, 8), _mask(2, 2, 3, 3)
    dataset = make_set([_video(_track(1, {0: small}), _track(2, {0: large}))])
    path = written(dataset, "davis", tmp_path)
    image = Image.open(f"{path}/a/b/00000.png")
    pixels = np.asarray(image)
    assert (image.mode, pixels[3, 3], pixels[0, 0], pixels[0, 9]) == ("P", 1, 2, 0)
    assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert dataset.notes["frames in which masks overlap, where the smaller one is on top"] == 1
    assert len(list(Path(path).rglob("*.png"))) == 2  # also the frame without objects


def test_davis_classes_come_back_through_youtube_vos(tmp_path):
    data = make_set([_video(_track(3, {0: _mask(1, 1, 2, 2)}, category=2), name="b")])
    path = written(data, "davis", tmp_path)
    assert plain(read_annotations("youtube-vos", path)) == plain(data)


def test_davis_palette_has_256_different_colours():
    colors = np.array(davis_palette()).reshape(256, 3)
    assert len(np.unique(colors, axis=0)) == 256
    assert colors[:5].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
    ]
    assert colors[[9, 15, 255]].tolist() == [[192, 0, 0], [192, 128, 128], [224, 224, 192]]


def test_formats_of_masks_count_boxes_that_they_leave_out(tmp_path):
    track = _track(1, {0: _mask(1, 1, 2, 2)})
    track.boxes[1] = (1.0, 1.0, 3.0, 3.0)
    for name in ("davis", "mots", "sa-v"):
        dataset = make_set([_video(track)])
        written(dataset, name, tmp_path)
        assert sum(n for what, n in dataset.notes.items() if what.startswith("boxes")) == 1


def test_mots_is_in_the_layout_of_the_challenge_or_of_kitti(tmp_path):
    dataset = make_set([_video(_track(4, {1: _mask(1, 1, 2, 2)}, category=2))])
    path = Path(written(dataset, "mots", tmp_path / "challenge"))
    line = (path / "a/b/gt/gt.txt").read_text().split()
    assert line[:5] == ["2", "2001", "2", "8", "10"]
    assert "seqLength=2" in (path / "a/b/seqinfo.ini").read_text()
    assert (path / "a/b/gt/labels.txt").read_text() == "car\npedestrian\n"
    path = Path(written(dataset, "mots", tmp_path / "kitti", first_frame=0))
    assert (path / "a/b.txt").read_text().split()[0] == "1"
    (video,) = read_annotations("mots", str(path), ReadOptions(first_frame=0))
    assert (video.name, set(video.tracks[0].boxes)) == ("a/b", {1})


def test_mots_refuses_more_tracks_than_it_can_number(tmp_path):
    mask = _mask(1, 1, 2, 2)
    dataset = make_set([_video(*(_track(i, {0: mask}) for i in range(1, 1001)))])
    with pytest.raises(DataError, match="at most 999 tracks of a class, got 1000"):
        written(dataset, "mots", tmp_path)


def test_cvat_keeps_occlusion_presences_and_any_name(tmp_path):
    track = Track(5, 1, boxes={0: (1.5, 1, 3, 3), 2: (2, 2, 4, 4)}, occluded={2})
    video = _video(track, frames=4)
    dataset = make_set([video], {1: 'a "b" <c> & 狗'})
    path = Path(written(dataset, "cvat", tmp_path))
    text = (path / "a/b.xml").read_text(encoding="utf-8")
    assert text.count("<box ") == 4  # two with outside=1
    (found,) = read_annotations("cvat", str(path))
    assert (found.name, found.tracks) == ("a/b", [track])
    again = read_annotations("cvat", str(path / "a" / "b.xml"))
    assert again.categories == dataset.categories


def test_cvat_runs_and_outline_of_a_mask():
    pixels = np.zeros((8, 10), dtype=bool)
    pixels[2, 3:6] = pixels[3, 4] = True
    assert runs_of_mask(mask_of(pixels)) == {
        "rle": "0, 3, 1, 1, 1",
        "left": 3,
        "top": 2,
        "width": 3,
        "height": 2,
    }
    points, is_whole = outline(_mask(2, 3, 4, 2))
    assert is_whole
    assert points.min(axis=0).tolist() == [2.25, 3.25]
    assert points.max(axis=0).tolist() == [5.75, 4.75]
    pixels[6, 8] = True
    assert not outline(mask_of(pixels))[1]


def test_ytvis_keeps_global_ids_scores_and_crowds_and_numbers_others(tmp_path):
    video = _video(_track(7, {0: _mask(1, 1, 2, 2)}, is_crowd=True, score=0.5))
    dataset = make_set([video])
    entry = json.loads(Path(written(dataset, "ytvis", tmp_path)).read_text())["annotations"][0]
    assert (entry["id"], entry["track_id"], entry["iscrowd"], entry["score"]) == (1, 7, 1, 0.5)
    assert entry["areas"] == [4, None]
    dataset.has_global_ids = True
    entry = json.loads(Path(written(dataset, "ytvis", tmp_path)).read_text())["annotations"][0]
    assert entry["id"] == 7
    assert "track_id" not in entry


def test_coco_of_pictures_keeps_ids(tmp_path):
    dataset = make_set([_video(_track(9, {0: _mask(1, 1, 2, 2)}), frames=1)])
    dataset.is_images = dataset.has_global_ids = True
    found = read_annotations("coco", written(dataset, "coco", tmp_path))
    assert [(v.id, [t.id for t in v.tracks]) for v in found] == [(1, [9])]


def test_sa_v_says_what_the_masklets_are(tmp_path):
    masks = {1: _mask(1, 1, 2, 2), 3: _mask(1, 1, 4, 1)}
    dataset = make_set([_video(_track(6, masks), name="v", frames=5)])
    content = json.loads((Path(written(dataset, "sa-v", tmp_path)) / "v_manual.json").read_text())
    expected = {
        "masklet_id": [6],
        "masklet_size_abs": [4.0],
        "masklet_size_bucket": ["small"],
        "masklet_first_appeared_frame": [1],
        "masklet_visibility_changes": [3],
        "video_frame_count": 5,
        "masklet_num": 1,
    }
    assert {key: content[key] for key in expected} == expected


def test_json_lists_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    with json_lists(str(path), ("a", "b"), {"head": 1}) as lists:
        for i in range(3):
            lists.append("b", {"i": i})
    assert json.loads(path.read_text()) == {
        "head": 1,
        "a": [],
        "b": [{"i": 0}, {"i": 1}, {"i": 2}],
    }
    with (
        pytest.raises(ValueError, match="Out of range"),
        json_lists(str(tmp_path / "b.json"), ("a",), {}) as lists,
    ):
        lists.append("a", float("nan"))
    assert not (tmp_path / "b.json").exists()
