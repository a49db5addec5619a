"""Missing frames and links out of the image root are found before training."""

from __future__ import annotations

import os

import pytest

from maskfreevis_ext.data.frame_files import check_images
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import DataError
from tests.helpers.videos import plain_content, write_frames, write_json


def test_check_images_accepts_a_complete_folder(tmp_path):
    content = plain_content()
    root = write_frames(tmp_path, content)
    check_images(load_ytvis_json(write_json(tmp_path, content), root))


def test_check_images_names_the_first_missing_frames_and_their_number(tmp_path):
    content = plain_content((9, 3))
    root = write_frames(tmp_path, content)
    videos = load_ytvis_json(write_json(tmp_path, content), root)
    for t in range(1, 8):
        os.remove(videos[0]["file_names"][t])
    with pytest.raises(DataError, match=r"7 of 12 frames do not exist: .*00001\.png \(video 1"):
        check_images(videos)
    with pytest.raises(DataError, match="7 of 7 frames"):
        check_images(load_ytvis_json(write_json(tmp_path, plain_content()), str(tmp_path / "no")))


def test_check_images_refuses_links_out_of_the_root(tmp_path):
    content = plain_content()
    root = write_frames(tmp_path, content)
    outside = tmp_path / "outside.png"
    victim = os.path.join(root, "v1", "00001.png")
    os.rename(victim, outside)
    os.symlink(outside, victim)
    videos = load_ytvis_json(write_json(tmp_path, content), root)
    with pytest.raises(DataError, match=r"00001\.png \(video 1\).*out of the folder"):
        check_images(videos)


def test_check_images_refuses_a_folder_that_leads_out_and_accepts_a_linked_root(tmp_path):
    content = plain_content()
    root = write_frames(tmp_path, content)
    link = tmp_path / "link"
    os.symlink(root, link)
    check_images(load_ytvis_json(write_json(tmp_path, content), str(link)))
    os.rename(os.path.join(root, "v2"), tmp_path / "v2")
    os.symlink(tmp_path / "v2", os.path.join(root, "v2"))
    with pytest.raises(DataError, match="video 2"):
        check_images(load_ytvis_json(write_json(tmp_path, content), root))
