"""Which masks are given, and which are to be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.inference.boxes_to_masks.given import (
    GivenVideo,
    given_video,
    made_masks,
    same_video,
)
from tests.helpers.videos import plain_content, rectangle, write_json


def _given(tmp_path: Path, content: dict[str, Any], previous: Any = None) -> GivenVideo:
    videos = load_ytvis_json(write_json(tmp_path, content), "frames")
    entries = {entry["id"]: entry for entry in content["annotations"]}
    if previous is not None:
        path = write_json(tmp_path, previous, "previous.json")
        previous = made_masks(load_ytvis_json(path, ""), previous)[0]
    return given_video(videos[0], entries, previous)


def test_boxes_without_masks_are_missing(tmp_path) -> None:
    given = _given(tmp_path, plain_content((3,)))
    assert given.tracks == [10, 11]
    assert given.is_missing.tolist() == [[True] * 3, [False, True, True]]
    assert given.boxes[0, 1].tolist() == [3, 3, 11, 9]


def test_masks_of_the_file_are_given_and_those_of_an_earlier_run_are_not(tmp_path) -> None:
    content = plain_content((3,), masks=True)
    content["annotations"][0]["mask_source"] = "pixel_head"
    content["annotations"][1] |= {"mask_source": "mixed", "mask_sources": [None, "given", "box"]}
    given = _given(tmp_path, content)
    assert set(given.masks) == {(1, 1)}
    assert given.is_missing.tolist() == [[True] * 3, [False, False, True]]


def test_only_masks_that_were_corrected_since_an_earlier_run_are_given(tmp_path) -> None:
    content = plain_content((3,), masks=True)
    before = plain_content((3,), masks=True)
    for entry in before["annotations"]:
        entry["mask_source"] = "pixel_head"
    for entry in content["annotations"]:
        entry["id"] += 5  # other formats change ids
    content["annotations"][0]["segmentations"][2] = rectangle(4, 3, 8, 3)
    given = _given(tmp_path, content, before)
    assert set(given.masks) == {(0, 2)}


def test_masks_that_were_given_to_the_earlier_run_stay_given(tmp_path) -> None:
    content = plain_content((3,), masks=True)
    assert len(_given(tmp_path, content, content).masks) == 5


def test_same_video_is_found_by_its_folder() -> None:
    videos = [{"length": 3, "file_names": [f"{name}/0.png"] * 3} for name in ("a", "b", "c")]
    assert same_video(videos[1], videos) == 1
    assert same_video({"length": 3, "file_names": ["x/b/0.jpg"] * 3}, videos) == 1
    assert same_video({"length": 4, "file_names": ["b/0.jpg"] * 4}, videos) is None
    assert same_video({"length": 3, "file_names": ["z/0.jpg"] * 3}, videos) is None
    assert same_video({"length": 3, "file_names": ["z/0.jpg"] * 3}, videos[:1]) == 0


def test_crowds_are_left_out(tmp_path) -> None:
    content = plain_content((3,))
    content["annotations"][0]["iscrowd"] = 1
    assert _given(tmp_path, content).tracks == [11]
