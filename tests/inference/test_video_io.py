"""Reading and writing of videos and folders of frames."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskfreevis_ext.data.images import read_frame
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.inference.video_io import (
    FrameList,
    FrameWriter,
    VideoFile,
    natural_key,
    open_frames,
    write_image,
)


def make_frames(count: int = 7, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Smooth RGB pictures; red grows from left to right, blue with time."""
    y, x = np.mgrid[0:height, 0:width]
    return [
        np.stack(
            [x * 255 / width, y * 100 / height, np.full_like(x, 30 * t, dtype=float)], -1
        ).astype(np.uint8)
        for t in range(count)
    ]


def stopping(frames: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames, and then an error."""
    yield from frames
    raise RuntimeError("stop")


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float = 12.0) -> Path:
    with FrameWriter(path, fps) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.path


class TestVideo:
    """mp4 files."""

    def test_round_trip_keeps_frames_order_and_speed(self, tmp_path):
        frames = make_frames()

        path = write_video(tmp_path / "deep" / "clip.mp4", frames)
        source = open_frames(path)

        assert (source.name, source.num_frames) == ("clip", len(frames))
        assert source.fps == pytest.approx(12.0)
        for _ in range(2):  # again and again
            read = list(source)
            assert len(read) == len(frames)
            for one, other in zip(frames, read, strict=True):
                assert np.abs(one.astype(int) - other).mean() < 6  # lossy
        assert [item.name for item in path.parent.iterdir()] == ["clip.mp4"]

    @pytest.mark.parametrize("size", [(47, 64), (48, 63), (47, 63)])
    def test_odd_sizes_grow_and_lose_nothing(self, tmp_path, size):
        frames = make_frames(3, *size)

        read = list(open_frames(write_video(tmp_path / "odd.mp4", frames)))

        assert read[0].shape == (48, 64, 3)
        assert np.abs(frames[0].astype(int) - read[0][: size[0], : size[1]]).mean() < 6

    def test_error_while_writing_leaves_no_file(self, tmp_path):
        with pytest.raises(RuntimeError, match="stop"):
            write_video(tmp_path / "a.mp4", stopping(make_frames(2)))

        assert list(tmp_path.iterdir()) == []

    def test_old_file_stays_until_the_new_one_is_whole(self, tmp_path):
        path = write_video(tmp_path / "a.mp4", make_frames(2))
        before = path.read_bytes()

        with pytest.raises(RuntimeError, match="stop"):
            write_video(path, stopping(make_frames(2)))

        assert path.read_bytes() == before

    def test_frames_lost_on_the_way_to_disk_are_noticed(self, tmp_path):
        writer = FrameWriter(tmp_path / "a.mp4")
        for frame in make_frames(2):
            writer.write(frame)
        writer.num_frames += 1  # as if one had been lost

        with pytest.raises(DataError, match=r"3 frames, got 2 on disk"):
            writer.__exit__(None, None, None)

        assert list(tmp_path.iterdir()) == []

    def test_without_encoder_frames_are_written(self, tmp_path, monkeypatch, caplog):
        class NoWriter:
            def __init__(self, *args: object) -> None: ...

            def isOpened(self) -> bool:
                return False

            def release(self) -> None: ...

        monkeypatch.setattr(cv2, "VideoWriter", NoWriter)
        with caplog.at_level(logging.WARNING):
            written = write_video(tmp_path / "clip.mp4", make_frames(3))

        assert written == tmp_path / "clip"
        assert sorted(item.name for item in written.iterdir()) == [
            "00000.jpg",
            "00001.jpg",
            "00002.jpg",
        ]
        assert "cannot write mp4" in caplog.text

    @pytest.mark.parametrize("kept", [0.0, 0.3, 0.66])
    def test_truncated_video_is_refused(self, tmp_path, kept):
        data = write_video(tmp_path / "whole.mp4", make_frames(30)).read_bytes()
        path = tmp_path / "cut.mp4"
        path.write_bytes(data[: int(kept * len(data))])

        with pytest.raises(DataError, match=r"cut\.mp4: no frame can be read"):
            open_frames(path)

    def test_file_that_is_no_video_is_refused(self, tmp_path):
        path = tmp_path / "notes.mp4"
        path.write_text("no video")

        with pytest.raises(DataError, match="no frame can be read"):
            VideoFile(path)

    def test_video_shorter_than_its_header_is_told(self, tmp_path, caplog):
        source = VideoFile(write_video(tmp_path / "a.mp4", make_frames(4)))
        source.num_frames = 9

        with caplog.at_level(logging.WARNING):
            assert len(list(source)) == 4

        assert "header says 9 frames, 4 could be read" in caplog.text

    @pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
    def test_speed_must_be_positive(self, tmp_path, fps):
        with pytest.raises(ConfigError, match="fps: expected a number > 0"):
            FrameWriter(tmp_path / "a.mp4", fps)

    def test_other_kinds_of_video_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"ends in \.mp4"):
            FrameWriter(tmp_path / "a.avi")

    def test_nothing_written_makes_no_file(self, tmp_path):
        write_video(tmp_path / "a.mp4", [])

        assert list(tmp_path.iterdir()) == []


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
        for one, other in zip(frames, source, strict=True):
            assert (one == other).all()

    def test_written_folder_is_read_back(self, tmp_path):
        frames = make_frames(3)

        written = write_video(tmp_path / "frames", frames)

        read = list(open_frames(written))
        assert len(read) == 3
        assert np.abs(frames[1].astype(int) - read[1]).mean() < 6

    def test_grey_and_transparent_pictures_become_rgb(self, tmp_path):
        cv2.imwrite(str(tmp_path / "grey.png"), np.full((5, 6), 77, np.uint8))
        cv2.imwrite(str(tmp_path / "rgba.png"), np.full((5, 6, 4), 200, np.uint8))

        assert read_frame(tmp_path / "grey.png").tolist() == np.full((5, 6, 3), 77).tolist()
        assert read_frame(tmp_path / "rgba.png").shape == (5, 6, 3)

    def test_single_picture_is_a_video_of_one_frame(self, tmp_path):
        write_image(tmp_path / "one.png", make_frames(1)[0])

        assert len(list(open_frames(tmp_path / "one.png"))) == 1

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

    def test_missing_picture_is_refused_with_its_path(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.jpg: there is no such image file"):
            list(FrameList([tmp_path / "a.jpg"], "a"))

    def test_frames_of_different_sizes_are_refused(self, tmp_path):
        write_image(tmp_path / "0.png", make_frames(1)[0])
        write_image(tmp_path / "1.png", make_frames(1, 20, 30)[0])

        with pytest.raises(DataError, match=r"1\.png: expected a frame of 64 x 48 .* got 30 x 20"):
            list(open_frames(tmp_path))


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_writer_refuses_what_is_no_frame(tmp_path, wrong):
    with FrameWriter(tmp_path / "a.mp4") as writer, pytest.raises(ValueError, match="uint8"):
        writer.write(wrong)


def test_writer_refuses_a_change_of_size(tmp_path):
    with FrameWriter(tmp_path / "a.mp4") as writer:
        writer.write(np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(ValueError, match=r"shape \[8, 8, 3\], got \[8, 10, 3\]"):
            writer.write(np.zeros((8, 10, 3), np.uint8))


def test_natural_key_sorts_numbers_as_numbers():
    names = ["b2", "a10", "a9", "a09b", "A1", "10", "9"]

    assert sorted(names, key=natural_key) == ["9", "10", "A1", "a09b", "a9", "a10", "b2"]


def test_picture_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "taken.png").mkdir()

    with pytest.raises(DataError, match=r"taken\.png: cannot be written"):
        write_image(tmp_path / "taken.png", make_frames(1)[0])
