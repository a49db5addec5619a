"""Pictures are opened by content, in a few formats, and not decoded before their size is known."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import maskfreevis_ext
from maskfreevis_ext.data.frame_headers import read_header
from maskfreevis_ext.data.images import image_size, read_frame, read_video_frame
from maskfreevis_ext.data.motion_masks import read_motion_mask
from maskfreevis_ext.data.pictures import PICTURE_FORMATS, NotAPictureError, open_picture
from maskfreevis_ext.data.readers.index_png import read_index_png
from maskfreevis_ext.errors import DataError
from tests.data.test_bad_samples import _EPS, png_bomb

_ROOT = Path(maskfreevis_ext.__file__).parent


@pytest.mark.parametrize("kind", PICTURE_FORMATS)
def test_formats_are_read_whatever_the_ending_says(tmp_path, kind):
    path = tmp_path / "a.dat"
    Image.fromarray(np.full((5, 4, 3), 77, np.uint8)).save(path, kind)
    assert image_size(path) == (5, 4)
    assert read_frame(path).mean() == pytest.approx(77, abs=2)


def _readers(path):
    video = {
        **{"file_names": [str(path)], "image_root": str(path.parent), "video_id": 1},
        **{"height": 20, "width": 30},
    }
    return {
        "frame": lambda: read_frame(path),
        "size": lambda: image_size(path),
        "video": lambda: read_video_frame(video, 0, "RGB"),
        "motion": lambda: read_motion_mask(str(path.parent), video, 0),
        "index": lambda: read_index_png(str(path), ("P", "L"), "masks"),
    }


@pytest.mark.parametrize("reader", ["frame", "size", "video", "motion", "index"])
def test_eps_in_a_picture_starts_no_program(tmp_path, monkeypatch, reader):
    def refuse(*args, **kwargs):
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    path = tmp_path / "a.png"
    path.write_bytes(_EPS)
    with pytest.raises(DataError, match=r"a\.png"):
        _readers(path)[reader]()
    assert read_header(path).fault == "it is no image"


@pytest.mark.parametrize("kind", ["GIF", "ICO", "TGA", "PDF", "SGI", "IM"])
def test_other_formats_are_refused(tmp_path, kind):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(path, kind)
    with pytest.raises(NotAPictureError, match=r"a\.png: expected an image.*BMP, JPEG"):
        open_picture(path)


@pytest.mark.parametrize("reader", ["frame", "size", "video", "motion", "index"])
@pytest.mark.parametrize("side", [16_000, 60_000])
def test_nothing_is_decoded_of_a_huge_picture(tmp_path, monkeypatch, reader, side):
    path = tmp_path / "a.png"
    path.write_bytes(png_bomb(side))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"a\.png"):
        _readers(path)[reader]()
    assert "pixels" in read_header(path).fault


def test_picture_of_another_size_is_not_decoded(tmp_path, monkeypatch):
    """Not too large for a frame, but 30 times as large as the annotations say."""
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((600, 900), np.uint8)).save(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"expected 30 x 20 pixels .* got 900 x 600"):
        _readers(path)["video"]()
    with pytest.raises(DataError, match="size"):
        _readers(path)["motion"]()
    assert read_header(path, (30, 20)).width == 900


def test_all_pictures_are_opened_in_one_place():
    """No other call of Pillow's or OpenCV's readers, which open all that they know."""
    found = []
    for path in sorted(_ROOT.rglob("*.py")):
        if "embedded" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                name = f"{owner}.{node.func.attr}"
                if node.func.attr in ("imread", "imdecode", "read_image") or name == "Image.open":
                    found.append((path.relative_to(_ROOT).as_posix(), name))
    assert found == [("data/images.py", "cv2.imread"), ("data/pictures.py", "Image.open")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png").fault == "there is no such file"
    for read in _readers(tmp_path / "a.png").values():
        with pytest.raises((DataError, AssertionError)):
            assert read() is not None
