"""The internal form: what the builder checks, mends, counts and numbers."""

from __future__ import annotations

from collections import Counter

import pytest

from maskfreevis_ext.data.annotation_form import (
    AnnotationSet,
    LazyVideo,
    Video,
    VideoBuilder,
    check_frame_size,
)
from maskfreevis_ext.errors import DataError
from tests.helpers.videos import rectangle


def _builder(**options):
    notes = Counter()
    video = Video(1, "v", 20, 30, ["v/0.jpg", "v/1.jpg"])
    return VideoBuilder(video, notes, **options), notes


def test_boxes_are_clipped_counted_and_may_be_beside_a_mask():
    builder, notes = _builder()
    builder.add(3, 1, 0, "here", box=[-2, 1, 8, 30], mask=rectangle(1, 2, 3, 4))
    builder.add(3, 1, 1, "here", mask=rectangle(1, 2, 3, 4), occluded=True)
    (track,) = builder.build().tracks
    assert (track.id, track.boxes) == (3, {0: (0, 1, 6, 19), 1: (1, 2, 3, 4)})
    assert (set(track.masks), track.occluded) == ({0, 1}, {1})
    assert {what: count for what, count in notes.items() if count} == {
        "boxes clipped to the frame": 1,
        "boxes taken from masks": 1,
    }


def test_what_cannot_be_an_object_is_left_out_and_counted():
    builder, notes = _builder(drops_outside=True)
    builder.add("a", 1, 0, "here", box=[1, 1, 0, 5])
    builder.add("a", 1, 1, "here", box=[40, 1, 5, 5])
    builder.add("b", 2, 0, "here", box=[1, 1, 2, 2])
    builder.add("b", 1, 1, "here", box=[1, 1, 2, 2], mask=rectangle(0, 0, 0, 0))
    (track,) = builder.build().tracks
    assert (track.id, track.category_id, track.masks) == (2, 2, {})
    assert sorted(count for count in notes.values() if count) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": 2}, r"here: the frame must be in 0\.\.1"),
        ({"frame": -1}, "got -1"),
        ({"box": [1, 2, 3]}, "4 finite numbers"),
        ({"box": [1, 2, float("nan"), 3]}, "4 finite numbers"),
        ({"box": [1, 2, -3, 3]}, "must not be negative"),
        ({"box": [31, 2, 3, 3]}, "not corners"),
        ({"box": [1, 2, 3, 10**400]}, "4 finite numbers"),
        ({"mask": {"size": [1, 1], "counts": "1"}}, "'size' must be"),
        ({"frame": 1}, "track 5 of video 'v' is in frame 1 twice"),
    ],
)
def test_object_that_cannot_be_right_is_named(change, message):
    builder, _ = _builder()
    builder.add(5, 1, 1, "there", box=[1, 1, 2, 2])
    values = {"frame": 0, "box": [1, 1, 2, 2], **change}
    with pytest.raises(DataError, match=message):
        builder.add(5, 1, values.pop("frame"), "here", **values)


@pytest.mark.parametrize("size", [(0, 5), (5, True), (5.0, 5), (20000, 5), (16384, 16384)])
def test_size_of_frames_is_checked(size):
    with pytest.raises(DataError, match="here"):
        check_frame_size(*size, "here")


@pytest.mark.parametrize("name", ["a\nb", "a\x07", "\ud800", "a\x85"])
def test_names_that_files_cannot_hold_are_refused(name):
    with pytest.raises(DataError, match="name of a class"):
        AnnotationSet("file", {1: name}, [], Counter())
    with pytest.raises(DataError, match="name of a video"):
        AnnotationSet("file", {}, [LazyVideo(name, list)], Counter())
