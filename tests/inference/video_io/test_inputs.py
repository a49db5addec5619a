"""What a user names as input."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskfreevis_ext.data.frame_files import natural_key
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.video_io import (
    Camera,
    FrameList,
    VideoFile,
    open_frames,
    open_inputs,
    write_image,
)
from tests.helpers.clips import make_frames, write_clip


def write_pictures(folder: Path, names: list[str]) -> list[str]:
    for t, name in enumerate(names):
        write_image(folder / name, np.full((4, 6, 3), t, np.uint8))
    return [str(folder / name) for name in names]


class TestFolder:
    """Folders of pictures."""

    def test_frames_come_in_natural_order(self, tmp_path):
        frames = make_frames(12)
        for t, frame in enumerate(frames):
            write_image(tmp_path / f"frame{t}.png", frame)
        (tmp_path / "notes.txt").write_text("not a frame")
        (tmp_path / ".hidden.png").write_text("not a frame")

        source = open_frames(tmp_path)

        assert isinstance(source, FrameList)
        assert source.fps is None
        assert source.num_frames == 12
        assert tmp_path in source.inputs
        for one, other in zip(frames, source, strict=True):
            assert (one == other).all()

    def test_masks_beside_frames_are_left_out(self, tmp_path, caplog):
        write_pictures(tmp_path, ["00000.jpg", "00000.png", "00001.jpg", "00001.png"])

        with caplog.at_level(logging.WARNING):
            source = open_frames(tmp_path)

        assert [path.name for path in source.files] == ["00000.jpg", "00001.jpg"]
        assert "the 2 .jpg are taken as frames, the .png are left out" in caplog.text
        assert len(caplog.records) == 1

    def test_kinds_without_a_common_name_are_all_frames(self, tmp_path, caplog):
        write_pictures(tmp_path, ["0.jpg", "1.png", "2.jpg"])

        assert [path.name for path in open_frames(tmp_path).files] == ["0.jpg", "1.png", "2.jpg"]
        assert caplog.text == ""

    def test_folder_without_pictures_is_refused(self, tmp_path):
        (tmp_path / "inner").mkdir()

        with pytest.raises(DataError, match="Give each video's own folder"):
            open_frames(tmp_path)

    def test_missing_path_is_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"nothing: there is no such"):
            open_frames(tmp_path / "nothing")

    @pytest.mark.parametrize("content", ["", "text", "cut"])
    def test_unreadable_picture_is_refused_with_its_path(self, tmp_path, content):
        for t, frame in enumerate(make_frames(3)):
            write_image(tmp_path / f"{t}.jpg", frame)
        whole = (tmp_path / "1.jpg").read_bytes()
        data = whole[: len(whole) // 2] if content == "cut" else content.encode()
        (tmp_path / "1.jpg").write_bytes(data)

        with pytest.raises(DataError, match=r"1\.jpg: expected an image, but it cannot be decoded"):
            list(open_frames(tmp_path))
        if content != "cut":
            with pytest.raises(DataError, match=r"1\.jpg: expected an image"):
                open_inputs([str(tmp_path)])

    def test_frames_of_different_sizes_are_refused_at_once(self, tmp_path):
        write_image(tmp_path / "0.png", make_frames(1)[0])
        write_image(tmp_path / "1.png", make_frames(1, 20, 30)[0])

        with pytest.raises(DataError, match=r"1\.png: expected a frame of 64 x 48 .* got 30 x 20"):
            open_inputs([str(tmp_path)])


class TestPictures:
    """Pictures that a user or the shell names one by one."""

    def test_single_picture_is_a_video_of_one_frame(self, tmp_path):
        (source,) = open_inputs(write_pictures(tmp_path, ["one.png"]))

        assert source.name == "one"
        assert len(list(source)) == 1
        assert source.inputs == [tmp_path / "one.png"]

    def test_pictures_of_one_folder_are_one_video(self, tmp_path, caplog):
        folder = tmp_path / "walk"
        names = write_pictures(folder, ["f10.jpg", "f9.jpg", "f8.jpg"])

        with caplog.at_level(logging.INFO, logger="maskfreevis_ext"):
            logging.getLogger("maskfreevis_ext").propagate = True
            (source,) = open_inputs(names)

        assert source.name == "walk"
        assert isinstance(source, FrameList)
        assert [path.name for path in source.files] == ["f8.jpg", "f9.jpg", "f10.jpg"]
        assert "3 pictures are taken as the frames of one video" in caplog.text

    def test_pictures_of_two_folders_are_two_videos(self, tmp_path):
        names = write_pictures(tmp_path / "a", ["0.jpg", "1.jpg"])
        names += write_pictures(tmp_path / "b", ["0.jpg", "1.jpg"])

        assert [source.name for source in open_inputs(names)] == ["a", "b"]

    def test_pattern_that_the_shell_left_alone(self, tmp_path):
        write_pictures(tmp_path / "walk", ["f9.jpg", "f10.jpg", "x.png"])

        (source,) = open_inputs([str(tmp_path / "walk" / "f*.jpg")])

        assert source.name == "walk"
        assert [path.name for path in source.files] == ["f9.jpg", "f10.jpg"]

    def test_pattern_of_videos_and_folders(self, tmp_path):
        write_pictures(tmp_path / "c", ["0.jpg", "1.jpg"])
        for name in ("a", "b"):
            write_clip(tmp_path / f"{name}.mp4", [0, 0.1])

        sources = open_inputs([str(tmp_path / "*")])

        assert [type(source) for source in sources] == [VideoFile, VideoFile, FrameList]

    def test_name_with_brackets_is_a_name(self, tmp_path):
        (source,) = open_inputs(write_pictures(tmp_path, ["a[1].png"]))

        assert source.name == "a[1]"

    def test_pattern_without_a_match_is_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"\*\.mp4: no file or folder"):
            open_inputs([str(tmp_path / "*.mp4")])


def test_number_is_a_camera(monkeypatch, tmp_path):
    class Capture:
        def __init__(self, number: object) -> None:
            assert number == 3

        def isOpened(self) -> bool:
            return True

        def read(self) -> tuple[bool, np.ndarray]:
            return True, np.zeros((4, 6, 3), np.uint8)

        def get(self, _: int) -> float:
            return 25.0

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    (source,) = open_inputs(["3"])

    assert isinstance(source, Camera)
    assert (source.name, source.fps) == ("camera_3", 25)


def test_natural_key_sorts_numbers_as_numbers():
    names = ["b2", "a10", "a9", "a09b", "A1", "10", "9"]

    assert sorted(names, key=natural_key) == ["9", "10", "A1", "a09b", "a9", "a10", "b2"]


def test_deep_pixels_are_scaled_by_a_stated_rule(tmp_path, caplog):
    for t in range(2):
        pixels = np.full((4, 6), 20_000 + t, np.uint16)
        cv2.imwrite(str(tmp_path / f"{t}.png"), pixels)
    with caplog.at_level(logging.INFO):
        source = open_inputs([str(tmp_path)])[0]
    assert (
        "uint16 pixels, 20000..20000; 0 is black and 65535 white (INPUT.PIXEL_RANGE)" in caplog.text
    )
    assert next(iter(source))[0, 0].tolist() == [78, 78, 78]
