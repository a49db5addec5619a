"""Frames from picture files, from a video, and from a folder of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.boxes_to_masks.sources import frame_places, open_sources
from maskfreevis_ext.inference.video_io import FrameWriter
from tests.helpers.videos import HEIGHT, WIDTH, plain_content, write_frames, write_json


def _videos(tmp_path: Path, images: Path | str, lengths: tuple[int, ...] = (4,)) -> list[Any]:
    return load_ytvis_json(write_json(tmp_path, plain_content(lengths)), str(images))


def _write_video(path: Path, count: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Frame t is grey of 20 t."""
    with FrameWriter(path) as writer:
        for t in range(count):
            writer.write(np.full((*size, 3), 20 * t, np.uint8))
    return path


def _greys(source: Any, indices: list[int]) -> list[int]:
    return [round(float(frame.mean()) / 20) for frame in source.read(indices)]


def test_picture_files(tmp_path) -> None:
    root = write_frames(tmp_path, plain_content((4,)))
    source = open_sources(_videos(tmp_path, root), root)[1]
    assert [int(frame[0, 0, 2]) for frame in source.read([1, 3])] == [10, 30]


def test_what_is_done_with_deep_pixels_is_said(tmp_path, caplog) -> None:
    root = write_frames(tmp_path, plain_content((4,)))
    for t in range(4):
        pixels = np.full((HEIGHT, WIDTH), 25_700 + t, np.uint16)
        Image.fromarray(pixels).save(Path(root) / "v1" / f"{t:05d}.png")
    source = open_sources(_videos(tmp_path, root), root)[1]
    assert "uint16 pixels, 25700..25700; 0 is black and 65535 white" in caplog.text
    assert next(source.read([0]))[0, 0].tolist() == [100, 100, 100]


def test_one_video_file_and_a_folder_of_them(tmp_path) -> None:
    path = _write_video(tmp_path / "films" / "v1.mp4", 4)
    for images in (path, path.parent):
        source = open_sources(_videos(tmp_path, images), str(images))[1]
        assert _greys(source, [0, 2, 3]) == [0, 2, 3]
        assert _greys(source, [1]) == [1]  # it can be read again


def test_row_that_a_codec_added_is_cut_off(tmp_path) -> None:
    content = plain_content((4,))
    content["videos"][0]["height"] = HEIGHT - 1  # the video has 20 rows
    path = _write_video(tmp_path / "v1.mp4", 4)
    videos = load_ytvis_json(write_json(tmp_path, content), str(path))
    source = open_sources(videos, str(path))[1]
    assert next(source.read([0])).shape == (HEIGHT - 1, WIDTH, 3)


def test_numbers_of_the_frames_say_where_they_are(tmp_path) -> None:
    video = {
        "video_id": 3,
        "length": 3,
        "file_names": ["a/00000.jpg", "a/00005.jpg", "a/00010.jpg"],
    }
    path = Path("a.mp4")
    assert frame_places(video, 12, path) == [0, 5, 10]
    assert frame_places(video, 3, path) == [0, 1, 2]
    assert frame_places(video, 0, path) == [0, 5, 10]
    with pytest.raises(DataError, match=r"a.mp4: has 9 frames, but video 3 .* needs frame 10"):
        frame_places(video, 9, path)
    video["file_names"] = ["x.jpg", "y.jpg", "z.jpg"]
    with pytest.raises(DataError, match="no rising numbers"):
        frame_places(video, 9, path)


def test_missing_frames_are_counted(tmp_path) -> None:
    root = Path(write_frames(tmp_path, plain_content((4, 3))))
    for name in ("v1/00001.png", "v2/00000.png"):
        (root / name).unlink()
    with pytest.raises(DataError, match="2 of 7 frames do not exist"):
        open_sources(_videos(tmp_path, root, (4, 3)), str(root))


def test_wrong_size_and_short_video_are_told(tmp_path) -> None:
    path = _write_video(tmp_path / "v1.mp4", 4, (40, 64))
    with pytest.raises(DataError, match=r"expected frames of 30 x 20 pixels .* got 64 x 40"):
        open_sources(_videos(tmp_path, path), str(path))
    with pytest.raises(DataError, match=r"has 4 frames, but video 1 .* needs frame 5"):
        open_sources(_videos(tmp_path, path, (6,)), str(path))


def test_pictures_of_another_size_are_told_before_the_work(tmp_path) -> None:
    content = plain_content((4,))
    root = write_frames(tmp_path, content)
    content["videos"][0]["height"] = HEIGHT + 4
    videos = load_ytvis_json(write_json(tmp_path, content), root)
    told = r"of 1 of 1 videos cannot .*v1/00000.png \(video 1, frame 0\).* 30 x 24 .* 30 x 20"
    with pytest.raises(DataError, match=told):
        open_sources(videos, root)
    (Path(root) / "v1" / "00000.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"v1/00000.png \(video 1, frame 0\): it is no image"):
        open_sources(videos, root)


def test_one_video_file_for_two_videos_and_no_folder(tmp_path) -> None:
    path = _write_video(tmp_path / "v1.mp4", 4)
    with pytest.raises(DataError, match="the annotations have 2 videos"):
        open_sources(_videos(tmp_path, path, (4, 4)), str(path))
    with pytest.raises(DataError, match="no such folder"):
        open_sources(_videos(tmp_path, tmp_path / "none"), str(tmp_path / "none"))
