"""MOT, MOTS, YOLO and CSV: numbering of frames and pixels, columns, classes, damaged lines."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.errors import DataError
from tests.helpers.annotations import write_files
from tests.helpers.videos import rectangle

SEQINFO = b"[Sequence]\nname=a\nseqLength=4\nimWidth=40\nimHeight=30\nimExt=.png\n"


def _read(name, path, **options):
    return read_annotations(name, str(path), ReadOptions(**options))


def test_mot_of_the_challenge_counts_frames_and_pixels_from_1(tmp_path):
    lines = b"1,3,11,6,8,9,1,1,0.9\n2,3,12,6,8,9,1,1,0.2\n2,9,1,1,4,4,0,1,1\n"
    write_files(tmp_path, {"a/gt/gt.txt": lines, "a/seqinfo.ini": SEQINFO, "a/det/det.txt": b"x"})
    dataset = _read("mot", tmp_path)
    (video,) = dataset
    assert video.file_names == [f"a/{t:06d}.png" for t in (1, 2, 3, 4)]
    (track,) = video.tracks
    assert dataset.categories[track.category_id] == "pedestrian"
    assert track.boxes == {0: (10, 5, 8, 9), 1: (11, 5, 8, 9)}
    assert track.occluded == {1}
    assert sum(dataset.notes.values()) == 1  # the line that is not to be considered


def test_mot_results_of_a_tracker_have_one_class_and_pixels_as_they_stand(tmp_path):
    lines = b"0,3,11,6,8,9,0.8,-1,-1,-1\n1,-1,1,1,4,4,0.9,-1,-1,-1\n"
    write_files(tmp_path, {"a.txt": lines})
    dataset = _read("mot", tmp_path / "a.txt", size=(30, 40))
    (video,) = dataset
    assert dataset.categories[video.tracks[0].category_id] == "object"
    assert video.tracks[0].boxes == {0: (11, 6, 8, 9)}
    assert dataset.notes["detections without a track (id -1) left out"] == 1


def test_mot_box_out_of_view_is_counted_and_one_at_the_border_clipped(tmp_path):
    write_files(tmp_path, {"a.txt": b"1,3,-4,0,8,9\n2,3,-40,0,8,9\n"})
    dataset = _read("mot", tmp_path, size=(30, 40))
    (video,) = dataset
    assert video.tracks[0].boxes == {0: (0, 0, 4, 9)}
    assert dataset.notes["boxes wholly outside the frame taken as absent"] == 1
    assert dataset.notes["boxes clipped to the frame"] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,3,nan,6,8,9", "left must be a finite number, got 'nan'"),
        ("1,3,1,6,-8,9", "must not be negative"),
        ("1,3,1,6", "got 4 values"),
        ("1.5,3,1,6,8,9", "frame must be an integer"),
        ("1,3,1,6,8,9\n1,3,1,6,8,9", "is in frame 0 twice"),
        ("1,3,1,6,8,9,1,99,1", "class must be in 1..14, got 99"),
    ],
)
def test_mot_line_that_cannot_be_right_is_named(tmp_path, line, message):
    (tmp_path / "a.txt").write_text(line)
    with pytest.raises(DataError, match=message) as error:
        list(_read("mot", tmp_path, size=(30, 40)))
    assert "a.txt: line " in str(error.value)


def _mots_line(frame, key, class_id, x=2):
    rle = rectangle(x, 3, 4, 5)
    return f"{frame} {key} {class_id} 20 30 {rle['counts']}\n"


def test_mots_line_names_class_size_and_mask(tmp_path):
    (tmp_path / "0002.txt").write_text(_mots_line(1, 1005, 1) + _mots_line(2, 10000, 10))
    dataset = _read("mots", tmp_path)
    (video,) = dataset
    assert (video.name, video.height, video.width, len(video.file_names)) == ("0002", 20, 30, 2)
    assert [(t.id, t.boxes) for t in video.tracks] == [(1005, {0: (2, 3, 4, 5)})]
    assert dataset.notes["ignored regions left out"] == 1


def test_mots_counts_from_0_if_a_line_or_the_pictures_do(tmp_path):
    (tmp_path / "a.txt").write_text(_mots_line(0, 1001, 1) + _mots_line(2, 1001, 1))
    (video,) = _read("mots", tmp_path / "a.txt")
    assert set(video.tracks[0].boxes) == {0, 2}
    for t in range(3):
        (tmp_path / "images" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("L", (30, 20)).save(tmp_path / "images" / "a" / f"{t:06d}.png")
    (tmp_path / "a.txt").write_text(_mots_line(1, 1001, 1))
    for options, expected in (
        ({"images": str(tmp_path / "images")}, {1}),
        ({}, {0}),
        ({"first_frame": 0}, {1}),
    ):
        (video,) = _read("mots", tmp_path / "a.txt", **options)
        assert set(video.tracks[0].boxes) == expected
    assert video.file_names[1] == "a/000001.jpg"
    # As many lines as pictures, so that the last would be beyond the end.
    (tmp_path / "a.txt").write_text(_mots_line(3, 1001, 1))
    (video,) = _read("mots", tmp_path / "a.txt", images=str(tmp_path / "images"))
    assert set(video.tracks[0].boxes) == {2}


def test_mots_unknown_class_says_how_to_name_it(tmp_path):
    (tmp_path / "a.txt").write_text(_mots_line(1, 3001, 3))
    with pytest.raises(DataError, match=r"labels\.txt"):
        list(_read("mots", tmp_path))
    (tmp_path / "labels.txt").write_text("cat\ndog\nemu\n")
    dataset = _read("mots", tmp_path)
    (video,) = dataset
    assert dataset.categories[video.tracks[0].category_id] == "emu"


def test_yolo_columns_of_confidence_track_and_polygon(tmp_path):
    polygon = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5 4"
    text = f"0 0.5 0.5 0.5 0.2 7\n1 0.5 0.5 0.5 0.2 0.91 8\n0 0.5 0.5 0.1 0.1\n{polygon}\n"
    write_files(tmp_path, {"walk_3.txt": text.encode()})
    dataset = _read("yolo-tracks", tmp_path, size=(20, 40))
    (video,) = dataset
    assert (video.name, len(video.file_names)) == ("walk", 3)
    assert dataset.categories == {1: "class_0", 2: "class_1"}
    boxes = {track.id: track.boxes for track in video.tracks}
    assert boxes[7] == boxes[8] == {2: (10, 8, 20, 4)}
    assert set(video.tracks[2].masks) == {2}
    assert sum(dataset.notes.values()) == 2  # no track; box taken from the polygon


def test_yolo_numbers_are_those_of_the_pictures_and_names_of_data_yaml(tmp_path):
    for number in (10, 20, 30):
        (tmp_path / "images" / "walk").mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 20)).save(tmp_path / "images" / "walk" / f"{number}.png")
    write_files(
        tmp_path / "labels",
        {"walk/20.txt": b"1 0.5 0.5 0.5 0.2 7\n", "data.yaml": b"names: {1: dog}\n"},
    )
    dataset = _read("yolo-tracks", tmp_path / "labels", images=str(tmp_path / "images"))
    (video,) = dataset
    assert set(video.tracks[0].boxes) == {1}
    assert dataset.categories == {2: "dog"}


HEAD = "video,frame,id,class,x,y,w,h"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_separators_byte_order_mark_and_names_of_tracks(tmp_path, separator, mark):
    text = f"{HEAD}\nwalk,1,left one,狗,1.5,2,3,4\nwalk,0,left one,狗,1,2,3,4\n"
    path = tmp_path / "a.csv"
    path.write_text(mark + text.replace(",", separator), encoding="utf-8")
    dataset = _read("csv", path, size=(20, 40))
    (video,) = dataset
    assert dataset.categories == {1: "狗"}
    assert [(t.id, t.boxes) for t in video.tracks] == [(1, {1: (1.5, 2, 3, 4), 0: (1, 2, 3, 4)})]
    (video,) = _read("csv", path, size=(20, 40), first_frame=0)
    with pytest.raises(DataError, match="frame must be an integer in 1"):
        list(_read("csv", path, size=(20, 40), first_frame=1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "line 1 must name the columns"),
        (f"{HEAD}\n", "no line below"),
        (f"{HEAD}\nv,0,1,cat,1,2,3\n", "line 2: expected 8 cells, got 7"),
        (f"{HEAD}\nv,0,1,cat,1,2,3,inf\n", "line 2: h must be a finite number"),
        (f"{HEAD}\n../v,0,1,cat,1,2,3,4\n", "line 2: video must be a path that stays"),
        (f"{HEAD}\nv,0,1,,1,2,3,4\n", "line 2: class must have"),
        (f"{HEAD}\nv,0,1,cat,50,2,60,4\n", "not corners"),
    ],
)
def test_csv_line_that_cannot_be_right_is_named(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        list(_read("csv", tmp_path / "a.csv", size=(20, 40)))


def test_text_that_is_not_utf8_is_named_with_the_place(tmp_path):
    (tmp_path / "a.csv").write_bytes(HEAD.encode() + b"\nv,0,1,caf\xe9,1,2,3,4\n")
    with pytest.raises(DataError, match=r"byte 0xe9 at offset 38"):
        _read("csv", tmp_path / "a.csv")


def test_file_name_that_is_not_unicode_is_named(tmp_path):
    try:
        with open(os.fsencode(str(tmp_path)) + b"/caf\xe9_1.txt", "w"):
            pass
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    with pytest.raises(DataError, match="not valid UTF-8"):
        _read("yolo-tracks", tmp_path)
