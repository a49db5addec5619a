"""Which prediction is said to show which object."""

from __future__ import annotations

import numpy as np
import pytest

from maskfreevis_ext.data import load_ytvis_json
from maskfreevis_ext.inference.matching import match_objects, objects_by_id
from maskfreevis_ext.tracks import Prediction
from tests.helpers.videos import HEIGHT, WIDTH, plain_content, write_json


@pytest.fixture(params=["masks", "boxes"])
def video(request, tmp_path) -> dict:
    """Object 10 is [2 + t, 3, 8, 6] in frame t, object 11 [15, 5 + t, 10, 7] but in frame 0."""
    content = plain_content((3,), masks=request.param == "masks")
    return load_ytvis_json(write_json(tmp_path, content), str(tmp_path))[0]


def tracks(*boxes_of_frames: list) -> Prediction:
    """Predictions that fill boxes (x, y, width, height), with falling scores."""
    masks = np.zeros((len(boxes_of_frames), 3, HEIGHT, WIDTH), dtype=bool)
    for track, boxes in zip(masks, boxes_of_frames, strict=True):
        for frame, box in zip(track, boxes, strict=True):
            if box is not None:
                x, y, w, h = box
                frame[y : y + h, x : x + w] = True
    count = len(boxes_of_frames)
    return Prediction.sort([0.9 - 0.1 * i for i in range(count)], [0] * count, list(masks))


MOVING = [[2 + t, 3, 8, 6] for t in range(3)]
LATE = [None, [15, 6, 10, 7], [15, 7, 10, 7]]
FAR = [[0, 15, 4, 4]] * 3


def test_perfect_tracks_match_in_any_order(video):
    assert match_objects(tracks(MOVING, LATE), video) == {1: 10, 2: 11}
    assert match_objects(tracks(LATE, FAR, MOVING), video) == {1: 11, 3: 10}


def test_each_object_is_matched_once_by_its_best_track(video):
    near = [[x + 1, y, w, h] for x, y, w, h in MOVING]

    assert match_objects(tracks(near, MOVING), video) == {2: 10}


def test_overlap_counts_over_the_whole_video(video):
    """One of three frames alone is less than half of the object."""
    assert match_objects(tracks([None, *MOVING[1:]]), video) == {1: 10}
    assert match_objects(tracks([MOVING[0], None, None]), video) == {}


def test_no_tracks_or_no_objects_match_nothing(video):
    assert match_objects(tracks(), video) == {}
    video["annotations"] = [[], [], []]
    assert match_objects(tracks(MOVING), video) == {}


def test_crowds_are_no_objects(video):
    for frame in video["annotations"]:
        for item in frame:
            item["iscrowd"] = int(item["id"] == 10)

    assert list(objects_by_id(video)) == [11]
    assert match_objects(tracks(MOVING), video) == {}
