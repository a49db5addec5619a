"""DAVIS, YouTube-VIS, COCO and MOTS files, read back."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from maskfreevis_ext.inference.frame_tracks import FrameTracks
from maskfreevis_ext.inference.track_files import (
    CocoFile,
    DavisMasks,
    FrameEntry,
    MotsFile,
    YtvisFile,
    category_list,
)
from maskfreevis_ext.rle import decode_rle, encode_masks

SIZE = (6, 9)
IDS = {0: 4, 1: 7}


def frame(number: int, objects: dict[int, tuple[int, float, slice]]) -> FrameEntry:
    """A frame whose objects (id: label, score, columns) are stripes of all rows."""
    masks = np.zeros((len(objects), *SIZE), bool)
    for mask, (_, _, columns) in zip(masks, objects.values(), strict=True):
        mask[:, columns] = True
    tracks = FrameTracks(
        number,
        np.array(list(objects), np.int64),
        np.array([label for label, _, _ in objects.values()], np.int64),
        np.array([score for _, score, _ in objects.values()], np.float32),
        masks,
    )
    return FrameEntry(
        number, f"img{number:03d}.jpg", SIZE, tracks, encode_masks(masks) if objects else []
    )


#: Object 1 in all frames but the second, object 2 in the last, where 1 covers a part of it.
FRAMES = [
    frame(0, {1: (0, 0.5, slice(0, 3))}),
    frame(1, {}),
    frame(2, {1: (1, 0.75, slice(2, 5)), 2: (0, 0.25, slice(4, 8))}),
]


def write(file, frames=FRAMES) -> list[Path]:
    for entry in frames:
        file.write(entry)
    return file.finish()


class TestDavis:
    """Index masks."""

    def test_pixels_are_ids_and_the_surest_object_is_on_top(self, tmp_path):
        files = write(DavisMasks(tmp_path))

        assert [path.name for path in files] == ["img000.png", "img001.png", "img002.png"]
        pictures = [Image.open(path) for path in files]
        assert {picture.mode for picture in pictures} == {"P"}
        rows = [np.asarray(picture)[3].tolist() for picture in pictures]
        assert rows == [[1, 1, 1, 0, 0, 0, 0, 0, 0], [0] * 9, [0, 0, 1, 1, 1, 2, 2, 2, 0]]

    def test_colours_are_those_of_davis(self, tmp_path):
        (path, *_) = write(DavisMasks(tmp_path))
        assert np.asarray(Image.open(path).convert("RGB"))[0, 0].tolist() == [128, 0, 0]

    def test_ids_that_do_not_fit_are_told(self, tmp_path, caplog):
        with caplog.at_level(logging.WARNING):
            (path,) = write(DavisMasks(tmp_path), [frame(0, {256: (0, 0.5, slice(0, 3))})])

        assert not np.asarray(Image.open(path)).any()
        assert "1 objects with ids above 255" in caplog.text


def test_ytvis_tracks_have_an_entry_per_frame(tmp_path):
    (path,) = write(YtvisFile(tmp_path / "results.json", 3, IDS))

    first, second = json.loads(path.read_text())
    assert (first["video_id"], first["score"], first["category_id"]) == (3, 0.75, 7)
    assert (second["score"], second["category_id"]) == (0.25, 4)
    assert first["segmentations"][1] is None
    assert second["segmentations"][:2] == [None, None]
    for entry, number, index in ((first, 0, 0), (first, 2, 0), (second, 2, 1)):
        mask = decode_rle(entry["segmentations"][number])
        assert (mask == FRAMES[number].tracks.masks[index]).all()
    assert [item.name for item in tmp_path.iterdir()] == ["results.json"]


def test_coco_file_is_a_data_set(tmp_path, capsys):
    (path,) = write(CocoFile(tmp_path / "a.json", category_list(IDS, ["cat", "dog"]), IDS))

    coco = COCO(str(path))
    assert [image["file_name"] for image in coco.imgs.values()] == [
        "img000.jpg",
        "img001.jpg",
        "img002.jpg",
    ]
    assert [category["name"] for category in coco.loadCats([4, 7])] == ["cat", "dog"]
    assert len(coco.getAnnIds(imgIds=[2])) == 0
    first, second = coco.loadAnns(coco.getAnnIds(imgIds=[3]))
    assert (first["track_id"], first["category_id"], first["score"]) == (1, 7, 0.75)
    assert second["bbox"] == [4, 0, 4, 6]
    assert second["area"] == 24
    assert (coco.annToMask(second) == FRAMES[2].tracks.masks[1]).all()


def test_mots_objects_do_not_overlap(tmp_path):
    (path,) = write(MotsFile(tmp_path / "a.txt", IDS))

    lines = [line.split(" ") for line in path.read_text().splitlines()]
    assert [line[:5] for line in lines] == [
        ["1", "1", "4", "6", "9"],
        ["3", "1", "7", "6", "9"],
        ["3", "2", "4", "6", "9"],
    ]
    masks = [mask_util.decode({"size": list(SIZE), "counts": line[5].encode()}) for line in lines]
    assert (masks[1] == FRAMES[2].tracks.masks[0]).all()
    assert masks[2][0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0]  # without what object 1 covers


@pytest.mark.parametrize("kind", ["ytvis", "coco", "mots"])
def test_videos_without_objects_and_without_frames(tmp_path, kind):
    def make():
        path = tmp_path / kind
        if kind == "ytvis":
            return YtvisFile(path, 1, IDS)
        return (
            CocoFile(path, category_list(IDS, None), IDS) if kind == "coco" else MotsFile(path, IDS)
        )

    assert write(make(), []) == []
    assert list(tmp_path.iterdir()) == []

    (path,) = write(make(), [frame(0, {}), frame(1, {})])
    text = path.read_text()
    if kind == "mots":
        assert text == ""
    elif kind == "coco":
        content = json.loads(text)
        assert (len(content["images"]), content["annotations"]) == (2, [])
        assert content["categories"][0] == {"id": 4, "name": "class 0"}
    else:
        assert json.loads(text) == []
