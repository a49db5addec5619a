"""Augmentations: one draw for all frames of a clip, and geometry that boxes follow."""

from __future__ import annotations

import numpy as np
import pytest

from maskfreevis_ext.data.augmentation import (
    ClipAugmentation,
    RandomColor,
    build_clip_augmentation,
)
from maskfreevis_ext.errors import ConfigError
from tests.helpers.videos import data_cfg

H, W = 40, 60


def _frames(count: int = 4) -> list[np.ndarray]:
    """Random frames, the first and last of which are equal."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (H, W, 3), dtype=np.uint8) for _ in range(count - 1)]
    return [*frames, frames[0].copy()]


EVERYTHING = (
    *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "relative_range"),
    *("INPUT.CROP.SIZE", (0.5, 0.5)),
    *("INPUT.MIN_SIZE_TRAIN", (24, 32, 48), "INPUT.RANDOM_FLIP", "flip_by_clip"),
    *("INPUT.AUGMENTATIONS", ["brightness", "contrast", "saturation", "rotation"]),
    *("INPUT.SUPERVISION", "mask"),
)  # fmt: skip


def test_equal_frames_of_a_clip_stay_equal_under_all_augmentations():
    augmentation = build_clip_augmentation(data_cfg(*EVERYTHING), True, "mask")
    shapes = set()
    for seed in range(12):
        np.random.seed(seed)
        frames, transforms = augmentation(_frames())
        np.testing.assert_array_equal(frames[0], frames[-1])
        assert len({frame.shape for frame in frames}) == 1
        assert not np.array_equal(frames[0], frames[1])
        np.testing.assert_array_equal(transforms.apply_image(_frames()[1]), frames[1])
        shapes.add(frames[0].shape)
    assert len(shapes) > 4


def test_draws_follow_numpys_seed():
    augmentation = build_clip_augmentation(data_cfg(*EVERYTHING), True, "mask")
    results = []
    for _ in range(2):
        np.random.seed(3)
        results.append([augmentation(_frames())[0] for _ in range(3)])
    for first, second in zip(*results, strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_error_in_one_clip_does_not_change_the_next():
    augmentation = build_clip_augmentation(data_cfg(*EVERYTHING), True, "mask")
    np.random.seed(1)
    with pytest.raises(AssertionError):
        augmentation([_frames()[0], np.zeros((3, 3, 3), np.uint8)])
    frames, _ = augmentation(_frames())
    np.testing.assert_array_equal(frames[0], frames[-1])


@pytest.mark.parametrize("kind", ["horizontal", "flip_by_clip", "vertical"])
def test_flip_treats_all_frames_and_boxes_alike(kind):
    cfg = data_cfg("INPUT.RANDOM_FLIP", kind, "INPUT.MIN_SIZE_TRAIN", (H,))
    augmentation = build_clip_augmentation(cfg, True)
    seen = set()
    for seed in range(20):
        np.random.seed(seed)
        clip = _frames()
        frames, transforms = augmentation(clip)
        axis = 0 if kind == "vertical" else 1
        is_flipped = not np.array_equal(frames[0], clip[0])
        seen.add(is_flipped)
        for frame, before in zip(frames, clip, strict=True):
            np.testing.assert_array_equal(frame, np.flip(before, axis) if is_flipped else before)
        box = transforms.apply_box(np.array([[5.0, 7.0, 20.0, 30.0]]))[0]
        expected = [5, 7, 20, 30]
        if is_flipped:
            expected = [W - 20, 7, W - 5, 30] if axis == 1 else [5, H - 30, 20, H - 7]
        np.testing.assert_allclose(box, expected)
    assert seen == {True, False}


@pytest.mark.parametrize("style", ["choice", "choice_by_clip", "range", "range_by_clip"])
def test_resize_scales_boxes_with_the_frames(style):
    cfg = data_cfg("INPUT.MIN_SIZE_TRAIN", (20, 80), "INPUT.MIN_SIZE_TRAIN_SAMPLING", style)
    augmentation = build_clip_augmentation(cfg, True)
    sizes = set()
    for seed in range(30):
        np.random.seed(seed)
        frames, transforms = augmentation(_frames())
        h, w = frames[0].shape[:2]
        sizes.add(h)
        assert {frame.shape for frame in frames} == {(h, w, 3)}
        box = transforms.apply_box(np.array([[6.0, 4.0, 30.0, 20.0]]))[0]
        np.testing.assert_allclose(box, np.array([6 * w, 4 * h, 30 * w, 20 * h]) / [W, H, W, H])
    assert min(sizes) >= 20
    assert max(sizes) <= 80
    assert (sizes == {20, 80}) is style.startswith("choice")


def test_resize_respects_the_longest_side():
    cfg = data_cfg("INPUT.MIN_SIZE_TRAIN", (400,), "INPUT.MAX_SIZE_TRAIN", 90)
    frames, _ = build_clip_augmentation(cfg, True)(_frames())
    assert frames[0].shape == (60, 90, 3)


def test_test_time_resizes_only():
    cfg = data_cfg(*EVERYTHING, "INPUT.MIN_SIZE_TEST", 20, "INPUT.MAX_SIZE_TEST", 1000)
    for seed in range(5):
        np.random.seed(seed)
        frames, _ = build_clip_augmentation(cfg, False)(_frames())
        assert frames[0].shape == (20, 30, 3)
    cfg = data_cfg("INPUT.MIN_SIZE_TEST", 0)
    np.testing.assert_array_equal(
        build_clip_augmentation(cfg, False)(_frames())[0][1], _frames()[1]
    )


def test_brightness_and_contrast_map_equal_values_to_equal_values():
    for kind in ("brightness", "contrast"):
        np.random.seed(0)
        first = np.arange(0, 240, dtype=np.uint8).reshape(10, 8, 3)
        second = first[::-1].copy() // 2
        (a, b), _ = ClipAugmentation([RandomColor(kind)])([first, second])
        table = dict(zip(first.ravel().tolist(), a.ravel().tolist(), strict=True))
        for before, after in zip(second.ravel().tolist(), b.ravel().tolist(), strict=True):
            assert table[before] == after
        assert not np.array_equal(a, first)
        assert np.abs(a.astype(int) - first).max() <= 26


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_saturation_uses_the_grey_of_its_own_frame_in_the_right_channel_order(image_format):
    augmentation = RandomColor("saturation", 0.0, 0.0, image_format)
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0 if image_format == "RGB" else 2] = 200
    grey = np.full((2, 2, 3), 77, np.uint8)
    (a, b), _ = ClipAugmentation([augmentation])([red, grey])
    np.testing.assert_array_equal(a, np.full((2, 2, 3), 60))  # 0.299 x 200
    np.testing.assert_array_equal(b, grey)


def test_colour_leaves_boxes_and_masks_alone():
    transform = RandomColor("contrast").get_transform(_frames()[0])
    box = np.array([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(transform.apply_box(box), box)
    mask = np.eye(4, dtype=np.uint8)
    np.testing.assert_array_equal(transform.apply_segmentation(mask), mask)


@pytest.mark.parametrize("supervision", ["box", "teacher"])
def test_rotation_is_refused_with_boxes_only(supervision):
    cfg = data_cfg("INPUT.AUGMENTATIONS", ["rotation"], "INPUT.SUPERVISION", supervision)
    with pytest.raises(ConfigError, match=r"INPUT\.AUGMENTATIONS.*INPUT\.SUPERVISION"):
        build_clip_augmentation(cfg, True, "box")


def test_rotation_by_data_turns_mask_samples_only():
    cfg = data_cfg(
        *("INPUT.AUGMENTATIONS", ["rotation"], "INPUT.SUPERVISION", "data"),
        *("INPUT.MIN_SIZE_TRAIN", (H,)),
    )
    frames, _ = build_clip_augmentation(cfg, True, "box")(_frames())
    np.testing.assert_array_equal(frames[1], _frames()[1])
    frames, _ = build_clip_augmentation(cfg, True, "mask")(_frames())
    assert not np.array_equal(frames[1], _frames()[1])


BAD_KEYS = {
    "flip": ("INPUT.RANDOM_FLIP", "diagonal"),
    "colour": ("INPUT.AUGMENTATIONS", ["hue"]),
    "sampling": ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "all"),
    "range": ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", (1, 2, 3)),
    "sizes": ("INPUT.MIN_SIZE_TRAIN", ()),
    "crop type": ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "middle"),
    "crop share": ("INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", (0.5, 1.5)),
    "crop zero": ("INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", (0.0, 0.5)),
    "crop range": (
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range"),
        *("INPUT.CROP.SIZE", (600, 300)),
    ),
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_unknown_values_name_the_key(case):
    named = {"crop": r"INPUT\.CROP", "flip": r"INPUT\.RANDOM_FLIP", "colour": r"INPUT\.AUGM"}
    with pytest.raises(ConfigError, match=named.get(case.split()[0], r"INPUT\.MIN_SIZE_TRAIN")):
        build_clip_augmentation(data_cfg(*BAD_KEYS[case]), True)


def test_absolute_crop_may_be_larger_than_the_frame():
    cfg = data_cfg(
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range"),
        *("INPUT.CROP.SIZE", (30, 500), "INPUT.MIN_SIZE_TRAIN", (0,)),
    )
    for seed in range(10):
        np.random.seed(seed)
        frames, _ = build_clip_augmentation(cfg, True)(_frames())
        assert 30 <= frames[0].shape[0] <= H
        assert 30 <= frames[0].shape[1] <= W
