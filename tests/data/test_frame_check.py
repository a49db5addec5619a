"""Headers of all frames are read before the training, and faults are told at once."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfreevis_ext.data.frame_check import (
    CACHE_FILE,
    check_frame_files,
    describe_frames,
    find_faults,
)
from maskfreevis_ext.data.frame_headers import Header, keep_headers, read_header, read_headers
from maskfreevis_ext.data.frame_rules import FrameRules
from maskfreevis_ext.errors import DataError
from tests.helpers.videos import data_cfg

SUFFIXES = (".jpg", ".png", ".webp", ".tif", ".bmp", ".ppm")


def _picture(path: Path, width: int = 40, height: int = 30, orientation: int = 1) -> str:
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(values).save(path, **({"exif": exif} if orientation != 1 else {}))
    return str(path)


def _video(paths: list[str], width: int = 40, height: int = 30) -> dict:
    return {"file_names": paths, "video_id": 3, "width": width, "height": height}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_header_has_the_size(tmp_path, suffix):
    assert read_header(_picture(tmp_path / f"a{suffix}")) == Header(40, 30)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.97, 0.5])
def test_truncated_file_is_found(tmp_path, suffix, share):
    path = Path(_picture(tmp_path / f"a{suffix}", 200, 150))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert read_header(path).fault.startswith("damaged") or read_header(path).fault == (
        "it is no image"
    )


def test_bytes_behind_the_end_of_a_jpeg_are_no_fault(tmp_path):
    path = Path(_picture(tmp_path / "a.jpg"))
    path.write_bytes(path.read_bytes() + b"camera's own data")
    assert read_header(path) == Header(40, 30)


def test_absent_file_and_text_are_faults(tmp_path):
    (tmp_path / "a.png").write_text("text")
    assert read_header(tmp_path / "a.png").fault == "it is no image"
    assert read_header(tmp_path / "b.png").fault == "there is no such file"


def test_values_of_deep_pixels_are_read(tmp_path):
    Image.fromarray(np.array([[7, 4095]], np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[0.5, 1.5]], np.float32)).save(tmp_path / "b.tif")
    Image.fromarray(np.array([[0.5, np.nan]], np.float32)).save(tmp_path / "c.tif")
    assert read_header(tmp_path / "a.png") == Header(2, 1, 1, "uint16", (7, 4095))
    assert read_header(tmp_path / "b.tif") == Header(2, 1, 1, "float32", (0.5, 1.5))
    assert "not all finite" in read_header(tmp_path / "c.tif").fault


class TestCheck:
    def check(self, videos: list[dict], *options: object) -> None:
        check_frame_files(data_cfg(*options), videos, "DATASETS.TRAIN")

    def test_good_frames_pass(self, tmp_path):
        self.check([_video([_picture(tmp_path / "a.jpg"), _picture(tmp_path / "b.png")])])

    def test_all_faults_are_counted_and_named(self, tmp_path):
        paths = [_picture(tmp_path / f"{t}.png", 40 + (t > 0)) for t in range(8)]
        with pytest.raises(DataError) as error:
            self.check([_video(paths)])
        text = str(error.value)
        assert text.startswith("DATASETS.TRAIN: 7 of 8 frames cannot be used")
        assert "1.png (video 3, frame 1): expected 40 x 30 pixels (width x height)" in text
        assert "5.png" in text
        assert "6.png" not in text

    def test_it_can_be_switched_off(self, tmp_path):
        self.check([_video([str(tmp_path / "absent.png")])], "INPUT.CHECK_FRAMES", False)

    @pytest.mark.parametrize("exif", ["apply", "ignore"])
    def test_turned_frames_name_the_value_of_exif_that_fits(self, tmp_path, exif):
        video = _video([_picture(tmp_path / "a.jpg", orientation=6)], 30, 40)
        if exif == "ignore":
            video.update(width=40, height=30)
        other = {"apply": "ignore", "ignore": "apply"}[exif]
        self.check([video], "INPUT.EXIF", exif)
        with pytest.raises(DataError, match=f"All frames fit with INPUT.EXIF {exif}"):
            self.check([video], "INPUT.EXIF", other)

    def test_values_beyond_the_rule_are_refused(self, tmp_path):
        path = str(tmp_path / "a.tif")
        Image.fromarray(np.full((30, 40), 700.0, np.float32)).save(path)
        with pytest.raises(DataError, match=r"float32 values in 0\.\.1, got 700\.\.700; set"):
            self.check([_video([path])])
        self.check([_video([path])], "INPUT.PIXEL_RANGE", [0, 1000])


def test_deep_and_turned_frames_are_described():
    headers = {"a": Header(4, 3, 6), "b": Header(4, 3, 1, "uint16", (3.0, 4095.0))}
    turned, deep = describe_frames(headers, FrameRules())
    assert turned.startswith("1 of 2 frames have an EXIF orientation and are turned upright")
    assert "1 of 2 frames have uint16 pixels, 3..4095; 0 is black and 65535 white" in deep
    assert "is INPUT.PIXEL_RANGE [3, 4095] meant?" in deep
    _, deep = describe_frames(headers, FrameRules("ignore", (0.0, 4095.0)))
    assert "nearly black" not in deep


class TestCache:
    def test_unchanged_files_are_not_read_again(self, tmp_path, monkeypatch):
        paths = [_picture(tmp_path / f"{t}.png") for t in range(3)]
        first = read_headers(paths)
        keep_headers(first, tmp_path / "cache.json")
        os.utime(paths[1], (1, 1))
        read = []
        monkeypatch.setattr(
            "maskfreevis_ext.data.frame_headers.read_header",
            lambda path, size: read.append(path) or Header(40, 30),
        )
        assert read_headers(paths, tmp_path / "cache.json") == first
        assert read == [paths[1]]

    def test_values_and_faults(self, tmp_path):
        good, bad = str(tmp_path / "a.png"), str(tmp_path / "b.png")
        Image.fromarray(np.array([[7, 4095]], np.uint16)).save(good)
        Path(bad).write_text("text")
        found = read_headers([good, bad])
        keep_headers(found, tmp_path / "cache.json")
        assert read_headers([good, bad], tmp_path / "cache.json") == found
        stored = json.loads((tmp_path / "cache.json").read_text())["folders"]
        assert list(stored[str(tmp_path)]) == ["a.png"]

    @pytest.mark.parametrize("content", ["", "[]", '{"version": 0}', '{"version": 1}', "\0"])
    def test_damaged_file_holds_nothing(self, tmp_path, content):
        (tmp_path / "cache.json").write_text(content)
        path = _picture(tmp_path / "a.png")
        assert read_headers([path], tmp_path / "cache.json") == {path: Header(40, 30)}

    def test_headers_of_absent_folders_go(self, tmp_path):
        (tmp_path / "old").mkdir()
        path = _picture(tmp_path / "old" / "a.png")
        keep_headers(read_headers([path]), tmp_path / "cache.json")
        Path(path).unlink()
        (tmp_path / "old").rmdir()
        keep_headers({}, tmp_path / "cache.json")
        assert json.loads((tmp_path / "cache.json").read_text())["folders"] == {}

    def test_it_lies_in_the_output_folder(self, tmp_path, monkeypatch, caplog):
        monkeypatch.setattr("maskfreevis_ext.data.frame_check.WORTH_KEEPING", 1)
        video = _video([_picture(tmp_path / "a.png")])
        check_frame_files(data_cfg("OUTPUT_DIR", str(tmp_path / "absent")), [video], "x")
        assert not (tmp_path / "absent").exists()
        check_frame_files(data_cfg("OUTPUT_DIR", str(tmp_path)), [video], "x")
        assert (tmp_path / CACHE_FILE).is_file()
        with caplog.at_level(logging.INFO):
            keep_headers({}, tmp_path)  # a folder
        assert "are not kept" in caplog.text

    def test_file_that_was_not_looked_at_is_not_kept(self, tmp_path, monkeypatch):
        monkeypatch.setattr("maskfreevis_ext.data.frame_check.WORTH_KEEPING", 1)
        path = Path(_picture(tmp_path / "a.png"))
        path.write_bytes(path.read_bytes()[:-999])
        cfg, video = data_cfg("OUTPUT_DIR", str(tmp_path)), _video([str(path)])
        with pytest.raises(DataError, match="expected 50 x 30 pixels"):
            check_frame_files(cfg, [{**video, "width": 50}], "x")
        with pytest.raises(DataError, match="damaged"):
            check_frame_files(cfg, [video], "x")


def test_fault_of_every_frame_of_a_video():
    headers = {"a": Header(40, 30), "b": Header(30, 40), "c": Header(fault="it is no image")}
    faults = find_faults([_video(["a", "b", "c"])], headers, FrameRules())
    assert [fault[0] for fault in faults] == ["b", "c"]
