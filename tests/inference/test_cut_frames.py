"""Cutting video files into frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.cut_frames import cut_videos


def _video(path, frames=2):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for _ in range(frames):
        writer.write(np.zeros((24, 32, 3), np.uint8))
    writer.release()


def test_every_video_of_a_folder_gets_a_folder_of_frames(tmp_path):
    for name, frames in (("a.avi", 2), ("b.avi", 3)):
        _video(tmp_path / name, frames)
    assert cut_videos(str(tmp_path), str(tmp_path / "frames")) == ["a", "b"]
    assert len(list((tmp_path / "frames" / "b").iterdir())) == 3
    assert (tmp_path / "frames" / "a" / "00001.jpg").is_file()


def test_nothing_is_cut_where_something_is_wrong(tmp_path):
    with pytest.raises(DataError, match="expected video files"):
        cut_videos(str(tmp_path), str(tmp_path / "frames"))
    _video(tmp_path / "a.avi")
    (tmp_path / "b.avi").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"b\.avi: no frame can be read"):
        cut_videos(str(tmp_path), str(tmp_path / "frames"))
    assert not (tmp_path / "frames").exists()
    (tmp_path / "b.avi").unlink()
    (tmp_path / "a.mkv").write_bytes(b"x")
    with pytest.raises(DataError, match="share a name"):
        cut_videos(str(tmp_path), str(tmp_path / "frames"))
