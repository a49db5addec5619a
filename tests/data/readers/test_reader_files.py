"""Helpers of the readers: numbers in text, names of videos, folders, frames."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskfreevis_ext.data.images import image_size
from maskfreevis_ext.data.json_fields import path_fault
from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.data.readers.files import (
    list_files,
    read_ini,
    read_text,
    real_number,
    unique_names,
    video_name,
    walk_folders,
    whole_number,
)
from maskfreevis_ext.data.readers.frames import (
    frame_names,
    frame_number,
    frame_size,
    listed_frames,
)
from maskfreevis_ext.errors import ConfigError, DataError


@pytest.mark.parametrize("text", ["", "1_0", "nan", "inf", "1e999", "٣", "0x1", "1,5", "--1"])
def test_text_that_is_no_number_is_refused(text):
    with pytest.raises(DataError, match="place must be a finite number"):
        real_number(text, "place")


def test_numbers_are_read_as_tools_write_them():
    assert [real_number(text, "") for text in ("1", " -.5", "1.", "+2e-1")] == [1, -0.5, 1, 0.2]
    assert whole_number("7.0", "") == 7
    for text in ("7.5", "-1", "1e300"):
        with pytest.raises(DataError, match="must be an integer in 0"):
            whole_number(text, "n")


@given(st.text())
def test_name_of_a_video_can_be_a_folder(text):
    assert path_fault(video_name(text)) is None


def test_names_become_unique():
    assert unique_names(["a", "b", "a", "a_2", "a"]) == ["a", "b", "a_2", "a_2_2", "a_3"]


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_text(str(tmp_path / "x"))
    with pytest.raises(DataError, match="cannot be read"):
        read_text(str(tmp_path))
    (tmp_path / "big").write_text("123")
    with pytest.raises(DataError, match="at most 2 bytes, got 3"):
        read_text(str(tmp_path / "big"), max_bytes=2)
    with pytest.raises(DataError, match=r"section \[Sequence\]"):
        read_ini(str(tmp_path / "big"), "Sequence")
    with pytest.raises(ConfigError, match="expected one of bdd100k"):
        read_annotations("vatic", "x")


def test_folders_are_walked_in_natural_order_without_following_links(tmp_path):
    for folder in ("v10", "v2/inner"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("v10/2.txt", "v10/10.TXT", "v2/inner/a.txt", "v2/inner/.hidden.txt"):
        (tmp_path / name).write_text("")
    os.symlink(tmp_path, tmp_path / "v2" / "loop")
    found = walk_folders(str(tmp_path), ".txt")
    assert found == [("v2/inner", ["a.txt"]), ("v10", ["2.txt", "10.TXT"])]


def test_link_out_of_the_root_is_refused_by_every_listing(tmp_path):
    inner = tmp_path / "root" / "v1"
    inner.mkdir(parents=True)
    for path in (tmp_path / "a.png", tmp_path / "root" / "b.png"):
        Image.new("L", (6, 4)).save(path)
    (inner / "0.png").symlink_to(tmp_path / "root" / "b.png")
    root = str(tmp_path / "root")
    assert listed_frames(root, "v1") == ["v1/0.png"]
    with pytest.raises(DataError, match=r"v1/0\.png: is a link that leads out of the folder"):
        list_files(str(inner), ".png")
    (inner / "1.png").symlink_to(tmp_path / "a.png")
    for listing in (walk_folders, listed_frames):
        with pytest.raises(DataError, match=r"v1/1\.png: is a link that leads out of the folder"):
            listing(root, ".png" if listing is walk_folders else "v1")


def test_frames_are_found_where_data_sets_keep_them(tmp_path):
    for folder in ("a", "b/img1"):
        (tmp_path / folder).mkdir(parents=True)
        for number in (10, 9):
            Image.new("L", (6, 4)).save(tmp_path / folder / f"{number}.png")
    images = str(tmp_path)
    assert listed_frames(images, "a") == ["a/9.png", "a/10.png"]
    assert listed_frames(images, "b") == ["b/img1/9.png", "b/img1/10.png"]
    assert listed_frames(images, "c") == []
    assert listed_frames(str(tmp_path / "a"), "c", is_only_video=True) == ["9.png", "10.png"]
    options = ReadOptions(images)
    assert frame_size("a", ["a/9.png"], options) == (4, 6)
    assert frame_size("a", ["a/9.png"], options, (1, 2)) == (1, 2)
    with pytest.raises(DataError, match="need 3 frames, got 2"):
        frame_names("a", 3, options, str)
    assert (frame_number("v3/frame_0012.jpg"), frame_number("x.jpg")) == (12, None)


def test_size_of_a_turned_picture_is_that_of_what_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(str(tmp_path / "a.jpg")) == (6, 4)
    (tmp_path / "b.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="expected an image"):
        image_size(str(tmp_path / "b.jpg"))
