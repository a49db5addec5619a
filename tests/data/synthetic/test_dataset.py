"""The generated data set: deterministic, annotated tightly, boxes only where promised."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_util

from maskfreevis_ext.data.frame_files import check_images
from maskfreevis_ext.data.synthetic import (
    CLASS_NAMES,
    SyntheticConfig,
    make_synthetic,
    render_video,
)
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.files import MARKS_FILE
from maskfreevis_ext.ops.color import rgb_to_lab

SMALL = SyntheticConfig(num_train=4, num_val=3, num_frames=5, image_format="png", train_masks=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Paths of a small data set."""
    return make_synthetic(str(tmp_path_factory.mktemp("synthetic")), SMALL)


def _digest(folder) -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and path.name != MARKS_FILE:
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("image_format", ["jpg", "png"])
def test_same_seed_gives_the_same_files_and_another_seed_others(tmp_path, image_format):
    config = SyntheticConfig(num_train=2, num_val=1, num_frames=3, image_format=image_format)
    for name in ("a", "b"):
        make_synthetic(str(tmp_path / name), config)
    make_synthetic(str(tmp_path / "c"), dataclasses.replace(config, seed=1))
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b") != _digest(tmp_path / "c")


def test_a_video_does_not_depend_on_how_many_there_are(tmp_path):
    config = SyntheticConfig(num_train=1, num_val=1, num_frames=3)
    make_synthetic(str(tmp_path / "a"), config)
    make_synthetic(str(tmp_path / "b"), dataclasses.replace(config, num_train=3, num_val=2))
    for split in ("train", "val"):
        folders = [tmp_path / name / split / "JPEGImages" / "video_0000" for name in "ab"]
        assert _digest(folders[0]) == _digest(folders[1])


def test_train_has_boxes_only_and_val_has_masks(written):
    for key, count, with_masks in (("train", 4, False), ("val", 3, True), ("train_masks", 4, True)):
        content = json.loads(Path(written[key]).read_text())
        assert len(content["videos"]) == count
        assert [c["name"] for c in content["categories"]] == list(CLASS_NAMES)
        assert content["annotations"]
        assert all(("segmentations" in track) is with_masks for track in content["annotations"])
    assert "instances_train_masks.json" in written["train_masks"]


def test_our_own_reader_accepts_everything_without_a_warning(written, caplog):
    for key, images in (
        ("train", "train_images"),
        ("val", "val_images"),
        ("train_masks", "train_images"),
    ):
        videos = load_ytvis_json(written[key], written[images])
        check_images(videos)
        assert all(video["has_masks"] is (key != "train") for video in videos)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_boxes_of_both_training_files_agree(written):
    plain, masked = (
        json.loads(Path(written[k]).read_text())["annotations"] for k in ("train", "train_masks")
    )
    assert [track["bboxes"] for track in plain] == [track["bboxes"] for track in masked]
    assert [track["category_id"] for track in plain] == [t["category_id"] for t in masked]


def test_boxes_are_tight_and_areas_right(written):
    tracks = json.loads(Path(written["val"]).read_text())["annotations"]
    for track in tracks:
        for box, rle, area in zip(
            track["bboxes"], track["segmentations"], track["areas"], strict=True
        ):
            assert (box is None) == (rle is None) == (area is None)
            if box is not None:
                assert mask_util.toBbox(rle).tolist() == box
                assert mask_util.area(rle) == area


def _many_videos(count=25, **changes):
    config = dataclasses.replace(SyntheticConfig(), **changes)
    return [render_video(np.random.default_rng([7, i]), config) for i in range(count)]


def test_visible_masks_are_disjoint_and_overlap_and_leaving_occur():
    config = SyntheticConfig()
    hidden, left, counts = 0, 0, []
    for frames, masks, classes in _many_videos():
        assert frames.shape == (config.num_frames, config.height, config.width, 3)
        assert frames.dtype == np.uint8
        assert masks.sum(axis=0, dtype=int).max() <= 1
        assert masks.any(axis=(1, 2, 3)).all()
        assert len(classes) == len(masks)
        counts.append(len(masks))
        touching = [np.roll(a, 1, -1) & b for a in masks for b in masks if a is not b]
        hidden += any(both.any() for both in touching)
        left += bool((~masks.any(axis=(2, 3))).any())
    assert min(counts) >= 0
    assert max(counts) == config.max_objects
    assert hidden >= 3
    assert left >= 3


def test_shapes_fill_their_boxes_only_partly_and_are_large_enough():
    fill = {name: [] for name in CLASS_NAMES}
    sides = []
    for _, masks, classes in _many_videos(min_objects=1, max_objects=1):
        for mask, index in zip(masks, classes, strict=True):
            for frame in mask:
                rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
                at_border = frame[0].any() or frame[-1].any() or frame[:, [0, -1]].any()
                if rows.size == 0 or at_border:
                    continue
                h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
                fill[CLASS_NAMES[index]].append(frame.sum() / (h * w))
                sides.append(max(h, w))
    assert 0.7 < np.mean(fill["circle"]) < 0.85
    assert 0.4 < np.mean(fill["triangle"]) < 0.65
    assert 0.35 < np.mean(fill["star"]) < 0.6
    assert np.percentile(sides, 5) >= 19


def test_colours_separate_objects_from_the_ground_as_the_losses_measure_them():
    inside, across = [], []
    for frames, masks, _ in _many_videos(12):
        images = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        lab = rgb_to_lab(torch.nn.functional.avg_pool2d(images, 4)).numpy()
        height, width = lab.shape[2:]
        share = masks.reshape(*masks.shape[:2], height, 4, width, 4).mean(axis=(3, 5))
        owner = np.where((share == 1).any(0), 1 + (share == 1).argmax(0), 0)
        owner[((share > 0) & (share < 1)).any(0)] = -1
        distance = np.linalg.norm(lab[..., 2:] - lab[..., :-2], axis=1)
        similar = np.exp(-0.5 * distance) >= 0.3
        a, b = owner[..., 2:], owner[..., :-2]
        inside.append(similar[(a == b) & (a > 0)])
        across.append(similar[(a != b) & (np.minimum(a, b) == 0) & (np.maximum(a, b) > 0)])
    assert np.concatenate(inside).mean() > 0.5
    assert np.concatenate(across).mean() < 0.02


def test_motion_is_smooth():
    for _, masks, _ in _many_videos(10):
        for track in masks:
            centres = [np.argwhere(frame).mean(0) for frame in track if frame.sum() > 150]
            steps = np.linalg.norm(np.diff(centres, axis=0), axis=1) if len(centres) > 1 else [0]
            assert np.max(steps) < 14


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train": -1},
        {"num_frames": 0},
        {"height": 10},
        {"width": 10_000},
        {"min_objects": 0},
        {"min_objects": 3, "max_objects": 2},
        {"seed": -1},
        {"image_format": "gif"},
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(DataError, match="Synthetic data"):
        SyntheticConfig(**changes)


def test_one_frame_and_other_sizes_work(tmp_path):
    config = SyntheticConfig(num_train=1, num_val=1, num_frames=1, height=50, width=70)
    paths = make_synthetic(str(tmp_path), config)
    video = load_ytvis_json(paths["val"], paths["val_images"])[0]
    with Image.open(video["file_names"][0]) as image:
        assert image.size == (70, 50)


@pytest.mark.parametrize(("fraction", "expected"), [(0.2, 1), (0.5, 2), (1.0, 5)])
def test_share_of_the_videos_has_masks(tmp_path: Path, fraction: float, expected: int) -> None:
    config = SyntheticConfig(num_train=5, num_val=1, num_frames=2, mask_fraction=fraction)
    paths = make_synthetic(str(tmp_path), config)
    videos = load_ytvis_json(paths["train_mixed"], paths["train_images"])
    assert sum(video["has_masks"] for video in videos) == expected
    plain = load_ytvis_json(paths["train"], paths["train_images"])
    assert [v["length"] for v in videos] == [v["length"] for v in plain]
    assert "train_masks" not in paths
