"""Frames and times of video files, pictures and cameras."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.video_io import (
    Camera,
    FrameList,
    FrameWriter,
    TimedFrame,
    VideoFile,
    every_nth,
    write_image,
)
from tests.helpers.clips import make_frames, turn, write_clip, write_motion_jpeg

UNEVEN = [0, 0.033, 0.07, 0.2, 0.233, 0.5, 0.533, 0.9]


def times_of(source, fps: float | None = None) -> list[float]:
    return [frame.time for frame in source.timed(fps)]


def end_of(source) -> float:
    *_, last = source.timed()
    return last.time + last.duration


class TestVideoFile:
    """Time stamps are believed before headers."""

    @pytest.mark.parametrize(
        ("name", "codec", "pixels"),
        [
            ("a.mp4", "libx264", "yuv420p"),
            ("a.mov", "mpeg4", "yuv420p"),
            ("a.mkv", "libx264", "yuv420p10le"),
            ("a.webm", "libvpx", "yuv420p"),
            ("a.avi", "mpeg4", "yuv420p"),
            ("a.gif", "gif", "rgb8"),
        ],
    )
    def test_all_kinds_are_read(self, backend, tmp_path, name, codec, pixels):
        frames = make_frames()
        times = [t / 10 for t in range(len(frames))]
        path = write_clip(tmp_path / name, times, codec, pixels, frames)

        source = VideoFile(path)
        read = list(source.timed())

        assert [frame.number for frame in read] == list(range(len(frames)))
        assert [frame.time for frame in read] == pytest.approx(times, abs=0.002)
        for frame, expected in zip(read, frames, strict=True):
            # A GIF of this palette has 8, 8 and 4 values of red, green and blue.
            error = np.abs(frame.picture.astype(int) - expected).mean()
            assert error < (25 if codec == "gif" else 8)
        assert source.size == (48, 64)
        assert source.fps == pytest.approx(10, rel=0.02)
        assert source.max_fps == pytest.approx(10, rel=0.02)

    @pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
    def test_uneven_times_are_kept(self, backend, tmp_path, name):
        source = VideoFile(write_clip(tmp_path / name, UNEVEN))

        assert times_of(source) == pytest.approx(UNEVEN, abs=0.002)
        assert source.fps == pytest.approx(7 / 0.9, rel=0.01)  # the header says 1000
        assert source.max_fps == pytest.approx(1 / 0.033, rel=0.01)
        assert end_of(source) == pytest.approx(0.9, abs=0.15)

    def test_each_frame_lasts_until_the_next(self, backend, tmp_path):
        frames = list(VideoFile(write_clip(tmp_path / "a.mkv", UNEVEN)).timed())

        ends = [frame.time + frame.duration for frame in frames[:-1]]
        assert ends == pytest.approx([frame.time for frame in frames[1:]])

    def test_video_that_starts_late_is_counted_from_its_first_frame(self, backend, tmp_path):
        source = VideoFile(write_clip(tmp_path / "a.mkv", [5.0, 5.1, 5.2, 5.3]))

        assert times_of(source) == pytest.approx([0, 0.1, 0.2, 0.3], abs=0.002)

    def test_given_rate_replaces_time_stamps(self, backend, tmp_path):
        source = VideoFile(write_clip(tmp_path / "a.mkv", UNEVEN))

        assert times_of(source, 4) == pytest.approx([t / 4 for t in range(8)])

    def test_one_frame_is_a_video(self, backend, tmp_path):
        (frame,) = VideoFile(write_clip(tmp_path / "a.mp4", [0])).timed()

        assert (frame.number, frame.time) == (0, 0)
        assert frame.duration > 0

    @pytest.mark.parametrize("quarters", [1, 2, 3])
    def test_turned_video_stands_upright(self, backend, tmp_path, quarters):
        path = turn(write_clip(tmp_path / "a.mp4", [0, 0.1]), quarters)

        source = VideoFile(path)
        expected = np.rot90(make_frames(1)[0], -quarters)

        for frame in source:
            assert frame.shape == expected.shape
            assert frame.shape[:2] == source.size
        assert np.abs(next(iter(source)).astype(int) - expected).mean() < 20

    def test_change_of_size_is_told_and_scaled(self, backend, tmp_path, caplog):
        frames = make_frames(3) + make_frames(2, 96, 80)

        with caplog.at_level(logging.WARNING):
            read = list(VideoFile(write_motion_jpeg(tmp_path / "a.mkv", frames)))

        assert {frame.shape for frame in read} == {(48, 64, 3)}
        assert len(read) == 5
        if backend == "pyav":  # OpenCV scales by itself and does not tell
            assert "size changes in mid-video: 2 of 5 frames" in caplog.text

    def test_broken_tail_leaves_the_frames_before_it(self, backend, tmp_path, caplog):
        path = write_motion_jpeg(tmp_path / "a.mkv", make_frames(100))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 6 // 10])

        with caplog.at_level(logging.WARNING):
            read = list(VideoFile(path).timed())

        assert 50 < len(read) < 65
        assert read[-1].duration == pytest.approx(0.1, abs=0.02)
        assert "could be read" in caplog.text or "could not be decoded" in caplog.text

    def test_damaged_middle_does_not_end_the_video(self, backend, tmp_path):
        path = write_motion_jpeg(tmp_path / "a.mkv", make_frames(60))
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 40] = bytes(40)
        path.write_bytes(data)

        assert 55 <= len(list(VideoFile(path))) <= 60

    def test_video_shorter_than_its_header_is_told(self, backend, tmp_path, caplog):
        with FrameWriter(tmp_path / "a.mp4") as writer:
            for frame in make_frames(4):
                writer.write(frame)
        source = VideoFile(tmp_path / "a.mp4")
        source.num_frames = 9

        with caplog.at_level(logging.WARNING):
            assert len(list(source)) == 4

        assert "header says 9 frames, 4 could be read" in caplog.text

    @pytest.mark.parametrize("kept", [0.0, 0.3, 0.66])
    def test_truncated_mp4_is_refused(self, backend, tmp_path, kept):
        frames = [np.random.RandomState(t).randint(0, 256, (48, 64, 3), np.uint8) for t in range(9)]
        data = write_clip(tmp_path / "whole.mp4", range(9), frames=frames).read_bytes()
        path = tmp_path / "cut.mp4"
        path.write_bytes(data[: int(kept * len(data))])

        with pytest.raises(DataError, match=r"cut\.mp4: no frame can be read"):
            VideoFile(path)

    def test_file_that_is_no_video_is_refused(self, backend, tmp_path):
        path = tmp_path / "notes.mp4"
        path.write_bytes(b"no video\0\1\2")

        with pytest.raises(DataError, match="no frame can be read"):
            VideoFile(path)


class TestFrameList:
    """Pictures of one size."""

    def write(self, folder: Path, frames: list[np.ndarray]) -> FrameList:
        paths = [folder / f"{t}.png" for t in range(len(frames))]
        for path, frame in zip(paths, frames, strict=True):
            write_image(path, frame)
        return FrameList(paths, "clip")

    def test_pictures_follow_each_other_at_one_rate(self, tmp_path):
        source = self.write(tmp_path, make_frames(3))

        assert times_of(source) == pytest.approx([0, 0.1, 0.2])
        assert times_of(source, 5) == pytest.approx([0, 0.2, 0.4])
        assert (source.size, source.num_frames, source.fps) == ((48, 64), 3, None)
        assert source.frame_name(1) == "1.png"

    def test_sizes_are_compared_before_frames_are_read(self, tmp_path):
        source = self.write(tmp_path, [make_frames(1)[0], make_frames(1, 20, 30)[0]])

        with pytest.raises(DataError, match=r"1\.png: expected a frame of 64 x 48 .* got 30 x 20"):
            source.check()
        with pytest.raises(DataError, match=r"1\.png: expected a frame of 64 x 48 .* got 30 x 20"):
            list(source)

    def test_missing_picture_is_refused_with_its_path(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.jpg: there is no such image file"):
            list(FrameList([tmp_path / "a.jpg"], "a"))


class FakeCapture:
    """A camera of four pictures."""

    def __init__(self, number: int) -> None:
        self.left = 4 if number == 0 else 0
        self.is_released = False

    def isOpened(self) -> bool:
        return self.left > 0

    def get(self, name: int) -> float:
        return 0.0  # as many cameras do

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.01)
        self.left -= 1
        picture = np.full((6, 8, 3), (0, 0, 200), np.uint8)
        return (True, picture) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.is_released = True


class TestCamera:
    """Frames as they come."""

    def test_frames_have_the_time_of_the_clock(self, monkeypatch):
        monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)

        camera = Camera(0)
        frames = list(camera.timed())

        assert len(frames) == 4
        assert camera.is_live
        assert camera.size == (6, 8)
        times = [frame.time for frame in frames]
        assert times == sorted(times)
        assert times[-1] >= 0.02
        assert (frames[0].picture == (200, 0, 0)).all()  # RGB
        assert camera._capture.is_released

    def test_absent_camera_is_refused(self, monkeypatch):
        monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)

        with pytest.raises(DataError, match="camera 7 gives no picture"):
            Camera(7)


class TestEveryNth:
    """Fewer frames, the same time."""

    def frames(self, count: int = 7) -> list[TimedFrame]:
        picture = np.zeros((1, 1, 3), np.uint8)
        return [TimedFrame(t, picture, t * 0.5, 0.5) for t in range(count)]

    def taken(self, **options) -> list[tuple[int, float, float]]:
        return [
            (frame.number, frame.time, frame.duration)
            for frame in every_nth(iter(self.frames()), **options)
        ]

    def test_frames_last_until_the_next_one_that_is_taken(self):
        assert self.taken(stride=3) == [(0, 0, 1.5), (3, 1.5, 1.5), (6, 3.0, 0.5)]

    def test_all_frames(self):
        assert [number for number, _, _ in self.taken()] == list(range(7))

    @pytest.mark.parametrize("stride", [1, 2])
    def test_number_of_frames_is_limited(self, stride):
        taken = self.taken(stride=stride, max_frames=2)

        assert [number for number, _, _ in taken] == [0, stride]
        assert taken[-1][2] == 0.5 * stride
        assert len(self.taken(stride=stride, max_frames=50)) == len(range(0, 7, stride))


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'a.mkv'\n",
        "#EXTM3U\n#EXTINF:10,\na.mkv\n#EXT-X-ENDLIST\n",
        "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "\ufeff<?xml version='1.0'?><MPD/>",
        "ID3\x04\0\0\0\0\0\0ffconcat version 1.0\nfile 'a.mkv'\n",
        "",
    ],
)
def test_playlists_and_scripts_are_no_videos(tmp_path, text):
    """FFmpeg would open the other file."""
    write_clip(tmp_path / "a.mkv", (0, 0.1, 0.2))
    path = tmp_path / "b.mp4"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.mp4: no frame can be read"):
        VideoFile(path)
