"""Writing of mp4 files and folders of frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.inference.video_io import (
    FrameWriter,
    check_encoding,
    encoders,
    open_frames,
    write_image,
)
from maskfreevis_ext.inference.video_io.encoders import EncodingError, writable_rate
from tests.helpers.clips import make_frames, shown

UNEVEN = [0, 0.033, 0.07, 0.2, 0.233, 0.5, 0.533, 0.9]


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

    def test_round_trip_keeps_frames_order_and_speed(self, backend, tmp_path):
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

    @pytest.mark.parametrize("size", [(47, 64), (48, 63), (47, 63), (1, 1)])
    def test_odd_sizes_grow_and_lose_nothing(self, backend, tmp_path, size):
        frames = make_frames(3, *size)

        read = list(open_frames(write_video(tmp_path / "odd.mp4", frames)))

        assert read[0].shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
        assert np.abs(frames[0].astype(int) - read[0][: size[0], : size[1]]).mean() < 6

    def test_times_of_frames_are_kept(self, backend, tmp_path):
        with FrameWriter(tmp_path / "a.mp4", 30) as writer:
            for frame, time in zip(make_frames(8), UNEVEN, strict=True):
                writer.write(frame, time, 0.1)

        frames = shown(tmp_path / "a.mp4")
        end = frames[-1][0] + frames[-1][1]
        if backend == "pyav":
            assert [time for time, _ in frames] == pytest.approx(UNEVEN, abs=1e-4)
            assert end == pytest.approx(1.0, abs=1e-4)
        else:
            assert end == pytest.approx(1.0, abs=1 / 60)
            assert len({duration for _, duration in frames}) == 1

    @pytest.mark.parametrize("fps", [66.667, 105.611, 23.976, 0.5, 240])
    def test_all_rates_can_be_written(self, backend, tmp_path, fps):
        frames = shown(write_video(tmp_path / "a.mp4", make_frames(12), fps))

        assert len(frames) == 12
        assert sum(duration for _, duration in frames) == pytest.approx(12 / fps, rel=0.001)

    def test_error_while_writing_leaves_no_file(self, backend, tmp_path):
        with pytest.raises(RuntimeError, match="stop"):
            write_video(tmp_path / "a.mp4", stopping(make_frames(2)))

        assert list(tmp_path.iterdir()) == []

    def test_old_file_stays_until_the_new_one_is_whole(self, backend, tmp_path):
        path = write_video(tmp_path / "a.mp4", make_frames(2))
        before = path.read_bytes()

        with pytest.raises(RuntimeError, match="stop"):
            write_video(path, stopping(make_frames(2)))

        assert path.read_bytes() == before

    def test_hidden_file_of_the_user_beside_the_video_stays(self, backend, tmp_path):
        mine = tmp_path / ".a.part.mp4"
        mine.write_bytes(b"mine")
        with FrameWriter(tmp_path / "a.mp4") as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
        assert mine.read_bytes() == b"mine"
        assert sorted(path.name for path in tmp_path.iterdir()) == [".a.part.mp4", "a.mp4"]

    def test_frames_lost_on_the_way_to_disk_are_noticed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(encoders, "av", None)  # PyAV tells of a full disk itself
        writer = FrameWriter(tmp_path / "a.mp4")
        for frame in make_frames(2):
            writer.write(frame)
        writer._encoder._count += 1  # as if one had been lost

        with pytest.raises(DataError, match=r"a\.mp4: cannot be written: expected 2 frames, got 1"):
            writer.__exit__(None, None, None)

        assert list(tmp_path.iterdir()) == []

    def test_full_disk_is_told(self, backend, tmp_path, monkeypatch):
        class FullDisk:
            def write(self, *_: object) -> None:
                raise EncodingError("No space left on device")

            def discard(self) -> None: ...

        def full_disk(*_: object) -> FullDisk:
            return FullDisk()

        monkeypatch.setattr("maskfreevis_ext.inference.video_io.writers.open_encoder", full_disk)
        with pytest.raises(DataError, match=r"a\.mp4: cannot be written: No space left"):
            write_video(tmp_path / "a.mp4", make_frames(2))

    def test_frames_that_cannot_be_encoded_are_refused(self, backend, tmp_path):
        check_encoding("a.mp4", (5, 4000), 10)

        with pytest.raises(DataError, match=r"a\.mp4: frames of 20000 x 16 .* --save frames"):
            check_encoding("a.mp4", (16, 20000), 10)
        with pytest.raises(DataError, match=r"b\.mp4: cannot be written"):
            write_video(tmp_path / "b.mp4", [np.zeros((16, 20000, 3), np.uint8)])
        assert list(tmp_path.iterdir()) == []

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


def test_rates_without_a_short_fraction_are_rounded():
    assert writable_rate(66.667) == pytest.approx(66.67)
    assert writable_rate(105.611) == pytest.approx(105.61)
    assert writable_rate(59.94) == pytest.approx(59.94)
    assert writable_rate(1e6) == 65535


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_writer_refuses_what_is_no_frame(tmp_path, wrong):
    with FrameWriter(tmp_path / "a.mp4") as writer, pytest.raises(ValueError, match="uint8"):
        writer.write(wrong)


def test_writer_refuses_a_change_of_size(tmp_path):
    with FrameWriter(tmp_path / "a.mp4") as writer:
        writer.write(np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(ValueError, match=r"shape \[8, 8, 3\], got \[8, 10, 3\]"):
            writer.write(np.zeros((8, 10, 3), np.uint8))


def test_written_folder_is_read_back(tmp_path):
    frames = make_frames(3)
    with FrameWriter(tmp_path / "frames", suffix=".png") as writer:
        for frame in frames:
            writer.write(frame, 0.5, 0.5)

    assert [path.name for path in writer.finish()] == ["00000.png", "00001.png", "00002.png"]
    for one, other in zip(frames, open_frames(tmp_path / "frames"), strict=True):
        assert (one == other).all()


class TestImage:
    """Single pictures."""

    def test_picture_that_cannot_be_written_is_told(self, tmp_path):
        (tmp_path / "taken.png").mkdir()

        with pytest.raises(DataError, match=r"taken\.png: cannot be written"):
            write_image(tmp_path / "taken.png", make_frames(1)[0])

    @pytest.mark.parametrize("name", ["a.xyz", "a"])
    def test_unknown_ending_is_told(self, tmp_path, name):
        with pytest.raises(DataError, match=r"expected a name that ends in \.png"):
            write_image(tmp_path / name, make_frames(1)[0])

    def test_colours_are_rgb(self, tmp_path):
        write_image(tmp_path / "a.png", np.full((2, 2, 3), (250, 10, 20), np.uint8))

        assert cv2.imread(str(tmp_path / "a.png"))[0, 0].tolist() == [20, 10, 250]
