"""Frames read from image files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from maskfreevis_ext.data.images import read_frame, read_video_frame
from maskfreevis_ext.errors import DataError


@pytest.fixture
def picture(tmp_path):
    """A file of 4 x 5 pixels, red 10, green 20, blue 30."""
    path = tmp_path / "a.png"
    Image.fromarray(np.full((5, 4, 3), (10, 20, 30), np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("order", "first"), [("RGB", 10), ("BGR", 30)])
def test_channels_are_in_the_wanted_order(picture, order, first):
    frame = read_frame(picture, order)

    assert frame.shape == (5, 4, 3)
    assert frame.dtype == np.uint8
    assert (frame[..., 0] == first).all()
    assert frame.flags.c_contiguous


def test_message_says_what_the_file_is(tmp_path):
    with pytest.raises(DataError, match=r"frame 7: there is no such image file"):
        read_frame(tmp_path / "absent.png", where="frame 7")
    with pytest.raises(DataError, match=r"absent\.png: there is no such image file"):
        read_frame(tmp_path / "absent.png")


def test_frame_of_a_video_has_the_size_of_the_annotation(picture):
    video = {"file_names": [str(picture)], "video_id": 3, "height": 5, "width": 4}

    assert read_video_frame(video, 0, "RGB").shape == (5, 4, 3)
    with pytest.raises(DataError, match=r"a\.png \(video 3, frame 0\): expected 5 x 5 pixels"):
        read_video_frame({**video, "width": 5}, 0, "RGB")
