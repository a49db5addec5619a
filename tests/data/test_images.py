"""Frames read from image files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from maskfreevis_ext.data.frame_rules import FrameRules
from maskfreevis_ext.data.images import image_size, read_frame, read_video_frame
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


class TestDeepPixels:
    """Images of more than 8 bits are scaled by one rule."""

    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    def test_16_bits_are_divided_by_257(self, tmp_path, name):
        values = np.array([[0, 257, 32896, 65535], [128, 129, 40000, 1]], np.uint16)
        Image.fromarray(values).save(tmp_path / name)

        frame = read_frame(tmp_path / name)

        assert frame.dtype == np.uint8
        assert frame[..., 0].tolist() == [[0, 1, 128, 255], [0, 1, 156, 0]]
        assert (frame == frame[..., :1]).all()

    def test_floats_are_times_255(self, tmp_path):
        Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "a.tif")

        assert read_frame(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 128, 255]

    @pytest.mark.parametrize(
        "values",
        [
            np.array([[0.0, 1.5]], np.float32),
            np.array([[-0.1, 1.0]], np.float32),
            np.array([[np.nan, 1.0]], np.float32),
            np.array([[0, 70000]], np.int32),
            np.array([[-1, 5]], np.int32),
        ],
    )
    def test_values_beyond_the_rule_are_refused_by_name(self, tmp_path, values):
        Image.fromarray(values).save(tmp_path / "a.tif")

        with pytest.raises(DataError, match=r"a\.tif: expected (float32|int32) values in 0\.\."):
            read_frame(tmp_path / "a.tif")

    def test_orientation_holds_for_them_too(self, tmp_path):
        image = Image.fromarray(np.zeros((4, 6), np.uint16))
        exif = Image.Exif()
        exif[274] = 6
        image.save(tmp_path / "a.png", exif=exif)

        assert read_frame(tmp_path / "a.png").shape == (6, 4, 3)
        assert image_size(tmp_path / "a.png") == (6, 4)


def test_size_comes_from_the_header(picture, tmp_path):
    assert image_size(picture) == (5, 4)
    with pytest.raises(DataError, match="there is no such image file"):
        image_size(tmp_path / "absent.png")
    (tmp_path / "b.png").write_text("text")
    with pytest.raises(DataError, match=r"b\.png: expected an image"):
        image_size(tmp_path / "b.png")


class TestRules:
    """INPUT.PIXEL_RANGE and INPUT.EXIF."""

    def test_range_is_black_and_white_and_clips(self, tmp_path):
        values = np.array([[0, 1000, 1500, 2000, 9000]], np.uint16)
        Image.fromarray(values).save(tmp_path / "a.png")

        frame = read_frame(tmp_path / "a.png", rules=FrameRules(pixel_range=(1000, 2000)))

        assert frame[0, :, 0].tolist() == [0, 0, 128, 255, 255]

    def test_not_a_number_is_refused(self, tmp_path):
        Image.fromarray(np.array([[np.nan, 1.0]], np.float32)).save(tmp_path / "a.tif")

        with pytest.raises(DataError, match="got NaN"):
            read_frame(tmp_path / "a.tif", rules=FrameRules(pixel_range=(0, 1)))

    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    @pytest.mark.parametrize(("order", "first"), [("RGB", 1), ("BGR", 255)])
    def test_colours_of_16_bits_follow_the_rule(self, tmp_path, name, order, first):
        bgr = np.full((2, 3, 3), (65535, 32896, 257), np.uint16)
        cv2.imwrite(str(tmp_path / name), bgr)

        frame = read_frame(tmp_path / name, order)

        assert frame.shape == (2, 3, 3)
        assert frame[0, 0].tolist() == [first, 128, 256 - first]

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("is_deep", [False, True])
    def test_orientation(self, tmp_path, orientation, is_deep):
        values = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
        path = tmp_path / "a.png"
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(values).save(path, exif=exif)
        upright = read_frame(path)
        if is_deep:
            plain = tmp_path / "b.png"
            cv2.imwrite(str(plain), values[:, :, ::-1].astype(np.uint16) * 257)
            head, end = plain.read_bytes()[:33], plain.read_bytes()[33:]
            chunk = path.read_bytes()
            start = chunk.index(b"eXIf") - 4
            length = int.from_bytes(chunk[start : start + 4], "big") + 12
            path.write_bytes(head + chunk[start : start + length] + end)

        assert (read_frame(path) == upright).all()
        assert (read_frame(path, rules=FrameRules("ignore")) == values).all()
        assert (read_frame(path, "BGR", rules=FrameRules("ignore")) == values[..., ::-1]).all()
        assert image_size(path, FrameRules("ignore")) == (3, 4)
        assert image_size(path) == upright.shape[:2]
