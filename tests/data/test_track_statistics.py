"""Counts of a data set, and tracks that look like mistakes."""

from __future__ import annotations

from typing import Any

import pytest
from detectron2.structures import BoxMode

from maskfreevis_ext.data.track_statistics import describe_videos


def _video(tracks: dict[int, list], labels: dict[int, int] | None = None) -> dict[str, Any]:
    """A video of 200 x 100 pixels with the boxes (x, y, w, h) or None of each track."""
    length = max(len(boxes) for boxes in tracks.values())
    frames: list[list[dict]] = [[] for _ in range(length)]
    for track, boxes in tracks.items():
        for t, box in enumerate(boxes):
            if box is not None:
                frames[t].append(
                    {
                        "id": track,
                        "category_id": (labels or {}).get(track, 0),
                        "iscrowd": 0,
                        "bbox": box,
                        "bbox_mode": BoxMode.XYWH_ABS,
                    }
                )
    names = [f"{t}.png" for t in range(length)]
    return {
        "video_id": 1, "height": 100, "width": 200, "file_names": names, "annotations": frames
    }  # fmt: skip


def _moving(speed: float, length: int = 5, x: float = 0.0) -> list[list[float]]:
    return [[x + speed * t, 10, 20, 20] for t in range(length)]


def test_counts():
    video = _video({1: _moving(2), 2: [[0, 0, 10, 40], None, [0, 0, 10, 40]]}, {2: 3})
    video["annotations"][0].append({**video["annotations"][0][0], "iscrowd": 1})
    video["annotations"][1][0]["segmentation"] = {}
    found = describe_videos([video])
    assert (found.num_videos, found.num_frames, found.num_crowds, found.num_masks) == (1, 5, 1, 1)
    assert found.tracks == {0: 1, 3: 1}
    assert found.objects == {0: 5, 3: 2}
    assert sorted(found.track_lengths) == [2, 5]
    assert found.sides == [20.0] * 7
    assert found.shares[0] == pytest.approx(20 / 20000**0.5)
    assert found.problems == [
        "1 of 2 tracks have gaps (frames without the object between).",
        "6 of 7 objects have no mask.",
    ]


def test_steady_tracks_are_not_suspicious():
    """Not even fast ones, nor such that grow slowly."""
    growing = [[50, 10, 10 * 1.3**t, 10 * 1.3**t] for t in range(6)]
    assert describe_videos([_video({1: _moving(30), 2: growing})]).suspicions == []


@pytest.mark.parametrize("speed", [0.0, 1.0, 8.0])
def test_jump_is_found(speed):
    boxes = _moving(speed)
    boxes[3] = [boxes[3][0] + 60, 10, 20, 20]
    found = describe_videos([_video({7: boxes})]).suspicions
    assert {one.frames for one in found} == {(2, 3), (3, 4)}
    assert all(one.text.startswith("jumps by ") for one in found)
    assert found[0].track_id == 7
    assert found[0].strength >= found[1].strength


def test_change_of_size_is_found():
    boxes = _moving(1)
    boxes[2] = [2, 10, 60, 60]
    found = describe_videos([_video({7: boxes})]).suspicions
    assert [one.frames for one in found if "area changes 9.0 times" in one.text] == [(1, 2), (2, 3)]


def test_object_drawn_twice_is_found():
    video = _video({1: _moving(2), 2: _moving(2, x=0.2), 3: _moving(2)}, {3: 1})
    (found,) = describe_videos([video]).suspicions
    assert found.text == "has the boxes of track 2 in all 5 shared frames"


def test_problems_of_the_whole_set():
    videos = [_video({1: [[0, 0, 200, 100]]}), _video({1: [None, None]})]
    assert describe_videos(videos).problems == [
        "1 of 2 videos have no object.",
        "1 of 1 tracks are seen in one frame only.",
        "1 of 1 boxes cover the whole frame.",
    ]


def test_box_without_area_does_not_divide_by_zero():
    assert describe_videos([_video({1: [[5, 5, 0, 0], [5, 5, 0, 0]]})]).suspicions == []
