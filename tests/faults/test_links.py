"""Links that lead out of a data root are refused by whatever reads there; a linked root is fine."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from maskfreevis_ext.data.images import read_video_frame
from maskfreevis_ext.data.motion_masks import read_motion_mask
from maskfreevis_ext.data.readers import ReadOptions, read_annotations
from maskfreevis_ext.data.readers.files import files_of, walk_folders
from maskfreevis_ext.data.readers.frames import frame_size
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.boxes_to_masks.sources import open_sources
from maskfreevis_ext.inference.cut_frames import cut_videos
from maskfreevis_ext.inference.video_io import open_frames, open_inputs
from tests.helpers.clips import write_clip

OUT = "link that leads out of the folder"


@pytest.fixture
def folders(tmp_path):
    """A root, a link to it, and a folder outside; both have a picture of 4 x 6 pixels."""
    root, outside, link = tmp_path / "root", tmp_path / "outside", tmp_path / "link"
    for folder in (root, outside):
        folder.mkdir()
        Image.fromarray(np.zeros((4, 6), np.uint8)).save(folder / "00000.png")
    link.symlink_to(root)
    return root, outside, link


def _video(root, name="00001.png"):
    return {
        **{"file_names": [os.path.join(root, name)], "image_root": str(root), "video_id": 1},
        **{"height": 4, "width": 6, "length": 1},
    }


def test_frames_of_data_sets(folders):
    root, outside, link = folders
    (root / "00001.png").symlink_to(outside / "00000.png")
    (root / "00002.png").symlink_to(root / "00000.png")
    with pytest.raises(DataError, match=rf"00001\.png \(video 1, frame 0\): is a {OUT}"):
        read_video_frame(_video(root), 0, "RGB")
    for name in ("00000.png", "00002.png"):
        assert read_video_frame(_video(link, name), 0, "RGB").shape == (4, 6, 3)


def test_motion_masks(folders):
    root, outside, link = folders
    assert read_motion_mask(str(link), _video(outside, "00000.png"), 0) is not None
    (root / "00000.png").unlink()
    (root / "00000.png").symlink_to(outside / "00000.png")
    with pytest.raises(DataError, match=OUT):
        read_motion_mask(str(root), _video(outside, "00000.png"), 0)


def test_folder_of_the_demo(folders):
    root, outside, link = folders
    assert open_frames(link).num_frames == 1
    (root / "00001.png").symlink_to(outside / "00000.png")
    for folder in (root, link):
        with pytest.raises(DataError, match=OUT):
            open_frames(folder)
    # a link that is named itself is what the user wants
    assert open_inputs([str(root / "00001.png")])[0].num_frames == 1


def test_folders_of_annotations(folders):
    root, outside, link = folders
    assert walk_folders(str(link), ".png") == [("", ["00000.png"])]
    (outside / "a.json").write_text(json.dumps({"version": "5"}))
    (root / "a.json").symlink_to(outside / "a.json")
    with pytest.raises(DataError, match=OUT):
        files_of(str(root), ".json", "files")
    for kind in ("labelme", "sa-v", "bdd100k"):
        with pytest.raises(DataError, match=OUT):
            list(read_annotations(kind, str(root), ReadOptions()))


def test_size_from_the_first_frame(folders):
    root, outside, _ = folders
    (root / "00001.png").symlink_to(outside / "00000.png")
    options = ReadOptions(images=str(root))
    assert frame_size("v", ["00000.png"], options) == (4, 6)
    with pytest.raises(DataError, match=OUT):
        frame_size("v", ["00001.png"], options)


def test_folders_of_videos(folders):
    root, outside, link = folders
    clip = write_clip(outside / "v.mp4", (0, 0.1, 0.2))
    (root / "v.mp4").symlink_to(clip)
    video = {**_video(root, "v/00000.png"), "image_root": str(root)}
    with pytest.raises(DataError, match=OUT):
        open_sources([video], str(root))
    for folder in (root, link):
        with pytest.raises(DataError, match=OUT):
            cut_videos(str(folder), str(outside / "cut"))
    assert not (outside / "cut").exists()
