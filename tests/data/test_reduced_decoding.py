"""JPEG frames decoded at a reduced size: nearly the same pixels, exactly the same geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from maskfreevis_ext.data.augmentation import ClipAugmentation
from maskfreevis_ext.data.images import read_frame
from maskfreevis_ext.data.mappers import YTVISDatasetMapper
from tests.helpers.configs import base_cfg

HEIGHT, WIDTH = 160, 240


def _picture() -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [128 + 100 * np.sin(x / (9 + k)) * np.cos(y / (7 + k)) for k in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def _video(folder: Path, suffix: str) -> dict[str, Any]:
    files = [str(folder / f"{t}.{suffix}") for t in range(2)]
    for t, file in enumerate(files):
        Image.fromarray(np.roll(_picture(), 3 * t, axis=1)).save(file, quality=95)
    item = {"id": 5, "category_id": 0, "iscrowd": 0, "bbox": [40, 30, 80, 60]}
    return {
        **{"file_names": files, "video_id": 1, "height": HEIGHT, "width": WIDTH, "length": 2},
        **{"has_masks": False},
        "annotations": [[{**item, "bbox_mode": BoxMode.XYWH_ABS}] for _ in files],
    }


def _sample(video: dict[str, Any], is_reduced: bool, is_train: bool, *more: object) -> dict:
    cfg = base_cfg()
    sizes = ["INPUT.MIN_SIZE_TRAIN", (64, 80), "INPUT.MIN_SIZE_TEST", 60]
    window = ["TEST.WINDOW.ABOVE", 1, "TEST.WINDOW.SIZE", 1, "TEST.WINDOW.STRIDE", 1]
    options = [*sizes, *window, "INPUT.FORMAT", "RGB", "INPUT.SAMPLING_FRAME_NUM", 2, *more]
    cfg.merge_from_list([*options, "INPUT.REDUCED_DECODING", is_reduced])
    np.random.seed(3)
    return YTVISDatasetMapper(cfg, is_train=is_train)(video)


@pytest.mark.parametrize("is_train", [True, False])
def test_pixels_are_close_and_boxes_equal(tmp_path: Path, is_train: bool) -> None:
    video = _video(tmp_path, "jpg")
    full, reduced = (_sample(video, flag, is_train) for flag in (False, True))
    assert len(full["image"]) == len(reduced["image"]) == 2
    for one, other in zip(full["image"], reduced["image"], strict=True):
        assert one.shape == other.shape
        difference = (one.float() - other.float()).abs()
        assert 0 < difference.mean() < 2  # it was reduced, and is close
    if is_train:
        assert torch.equal(full["tracks"]["boxes"], reduced["tracks"]["boxes"])
        assert full["frame_indices"] == reduced["frame_indices"]


def test_other_files_crops_and_slight_resizes_are_read_whole(tmp_path: Path) -> None:
    png, jpg = _video(tmp_path, "png"), _video(tmp_path, "jpg")
    slight = "INPUT.MIN_SIZE_TRAIN", (90,)
    crop = (
        "INPUT.CROP.ENABLED",
        True,
        "INPUT.CROP.TYPE",
        "absolute",
        "INPUT.CROP.SIZE",
        [150, 200],
    )
    for video, more in ((png, ()), (jpg, slight), (jpg, crop)):
        full, reduced = (_sample(video, flag, True, *more) for flag in (False, True))
        assert torch.equal(torch.stack(full["image"]), torch.stack(reduced["image"]))


@pytest.mark.parametrize("turn", [1, 6])
def test_the_least_size_holds_for_the_upright_frame(tmp_path: Path, turn: int) -> None:
    file = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(_picture()).save(file, exif=exif)
    upright = (HEIGHT, WIDTH) if turn == 1 else (WIDTH, HEIGHT)
    half = (upright[0] // 2, upright[1] // 2)
    assert read_frame(file).shape[:2] == upright
    assert read_frame(file, least=half).shape[:2] == half
    assert read_frame(file, least=(half[0] + 1, half[1])).shape[:2] == upright
    assert read_frame(file, size=upright, least=(10, 10)).shape[0] < half[0]


def test_first_resize_is_none_behind_other_augmentations() -> None:
    resize = T.ResizeShortestEdge([64], 100, "choice")
    assert ClipAugmentation([T.RandomFlip(), resize]).first_resize((100, 100)) is None
    assert ClipAugmentation([]).first_resize((100, 100)) is None
    drawn = ClipAugmentation([resize]).first_resize((128, 200))
    assert drawn is not None
    assert (drawn.new_h, drawn.new_w) == (64, 100)
