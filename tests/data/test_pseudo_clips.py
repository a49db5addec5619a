"""Clips from images: smooth motion, one draw per clip, boxes as tight as what is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskfreevis_ext.data.augmentation import (
    LargeScaleJitter,
    build_clip_augmentation,
    keeps_boxes_tight,
)
from maskfreevis_ext.data.boxes import tight_box
from maskfreevis_ext.data.image_mapper import CocoClipDatasetMapper
from maskfreevis_ext.data.pseudo_clips import PseudoClipAugmentation
from maskfreevis_ext.data.registration import load_annotations
from tests.data.test_joint import image_content, write_images
from tests.helpers.videos import HEIGHT, WIDTH, data_cfg, write_json

STILL = ("INPUT.PSEUDO.MIN_SIZE_TRAIN", (HEIGHT,), "INPUT.PSEUDO.AUGMENTATIONS", [])
DRIFT = (
    *("INPUT.PSEUDO.CROP.ENABLED", True, "INPUT.PSEUDO.CROP.TYPE", "relative"),
    *("INPUT.PSEUDO.CROP.SIZE", (0.7, 0.7)),
)


@pytest.fixture
def image(tmp_path):
    """The dataset dict of an image whose two objects have boxes and masks."""
    content = image_content(1)
    return load_annotations(write_json(tmp_path, content), write_images(tmp_path, content))[0]


def _boxes_only(image):
    items = [
        {k: v for k, v in item.items() if k != "segmentation"} for item in image["annotations"][0]
    ]
    return {**image, "annotations": [items], "has_masks": False}


def _mapper(*overrides):
    return CocoClipDatasetMapper(data_cfg(*STILL, *overrides))


def _sample(mapper, image, seed):
    np.random.seed(seed)
    return mapper(image)


@pytest.mark.parametrize("num_frames", [1, 2, 4, 7])
@pytest.mark.parametrize("supervision", ["box", "mask"])
def test_sample_follows_the_contract_of_clips(image, num_frames, supervision):
    mapper = _mapper(
        *("INPUT.PSEUDO.SAMPLING_FRAME_NUM", num_frames, *DRIFT),
        *("INPUT.PSEUDO.AUGMENTATIONS", ["rotation", "contrast"]),
        *("INPUT.PSEUDO.SUPERVISION", supervision, "INPUT.RANDOM_FLIP", "flip_by_clip"),
    )
    for seed in range(5):
        sample = _sample(mapper, image, seed)
        assert len(sample["image"]) == len(sample["instances"]) == num_frames
        assert len({frame.shape for frame in sample["image"]}) == 1
        assert sample["supervision"] == supervision
        assert sample["length"] == 41
        assert sample["frame_indices"] == sorted(set(sample["frame_indices"]))
        tracks = sample["tracks"]
        h, w = sample["image"][0].shape[1:]
        assert tracks["boxes"].shape[1:] == (num_frames, 4)
        assert bool((tracks["boxes"] >= 0).all())
        assert bool((tracks["boxes"] <= torch.tensor([w, h, w, h])).all())
        if supervision == "mask":
            assert tracks["masks"].shape[1:] == (num_frames, h, w)


def _grown(mask):
    """The mask (H, W) and the pixels next to it."""
    return F.max_pool2d(mask[None].float(), 3, stride=1, padding=1)[0] > 0


def test_masks_go_with_the_pixels_and_boxes_are_tight(image):
    """Red pixels are the objects; at their borders the image is interpolated, the mask is not."""
    mapper = _mapper("INPUT.PSEUDO.AUGMENTATIONS", ["rotation"], *DRIFT)
    moved = 0
    for seed in range(12):
        sample = _sample(mapper, image, seed)
        for t, frame in enumerate(sample["image"]):
            masks = sample["tracks"]["masks"][:, t]
            red, mask = frame[0] > 127, masks.any(0)
            assert not bool((red & ~_grown(mask)).any())
            assert not bool((mask & ~_grown(red)).any())
            for mask, box in zip(masks, sample["tracks"]["boxes"][:, t], strict=True):
                expected = tight_box(mask.numpy()) or (0, 0, 0, 0)
                assert box.tolist() == list(expected)
        moved += not torch.equal(sample["image"][0], sample["image"][-1])
    assert moved == 12


def test_clips_of_boxes_do_not_turn(image):
    plain = _boxes_only(image)
    mapper = _mapper("INPUT.PSEUDO.AUGMENTATIONS", ["rotation"])
    for seed in range(4):
        sample = _sample(mapper, plain, seed)
        assert sample["supervision"] == "box"
        boxes = sample["tracks"]["boxes"]
        assert boxes[:, 0].tolist() == [[2, 3, 10, 9], [15, 5, 25, 12]]
        assert all(torch.equal(frame, sample["image"][0]) for frame in sample["image"])


def test_window_over_boxes_leaves_half_of_each_or_nothing(image):
    mapper = _mapper(*DRIFT)
    drifting = cut = 0
    for seed in range(40):
        sample = _sample(mapper, _boxes_only(image), seed)
        drifting += not torch.equal(sample["image"][0], sample["image"][-1])
        scale = sample["image"][0].shape[1] / HEIGHT
        for track, ids in zip(sample["tracks"]["boxes"], sample["tracks"]["ids"], strict=True):
            full = (8, 6) if int(ids.max()) % 10 == 0 else (10, 7)
            sides = track[ids >= 0][:, 2:] - track[ids >= 0][:, :2]
            share = sides / (torch.tensor(full) * scale)
            assert bool((share >= 0.49).all())
            cut += int((share < 0.95).any())
    assert drifting >= 8
    assert cut > 0


def test_motion_is_steady_in_time():
    """The window's corner and the angle are linear functions of the time."""
    cfg = data_cfg(*STILL, *DRIFT, "INPUT.PSEUDO.AUGMENTATIONS", ["rotation"])
    augmentation = PseudoClipAugmentation(cfg)
    times = [0.0, 0.25, 0.5, 1.0]
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    steady = 0
    for seed in range(20):
        np.random.seed(seed)
        starts = augmentation._windows(image, times, None)
        corners = np.array([start.apply_coords(np.zeros((1, 2)))[0] for start in starts])
        expected = corners[0] + np.outer(times, corners[-1] - corners[0])
        assert np.abs(corners - expected).max() <= 1
        steady += np.ptp(corners) > 0
        angles = np.array([turn.angle for turn in augmentation._turns(image, times)])
        assert np.allclose(np.abs(angles), [15, 7.5, 0, 15])
        assert np.allclose(angles, angles[0] + np.array(times) * (angles[-1] - angles[0]))
    assert steady > 5


def test_no_range_gives_equal_frames(image):
    mapper = _mapper(
        *("INPUT.PSEUDO.SAMPLING_FRAME_RANGE", 0, "INPUT.PSEUDO.AUGMENTATIONS", ["rotation"]),
        *DRIFT,
    )
    sample = _sample(mapper, image, 3)
    assert sample["frame_indices"] == [0, 0, 0, 0]
    assert all(torch.equal(frame, sample["image"][0]) for frame in sample["image"])


def test_sizes_are_those_of_the_keys(image):
    mapper = _mapper(
        *("INPUT.PSEUDO.MIN_SIZE_TRAIN", (10, 40), "INPUT.PSEUDO.MAX_SIZE_TRAIN", 45),
    )
    shapes = {tuple(_sample(mapper, image, seed)["image"][0].shape[1:]) for seed in range(12)}
    assert shapes == {(10, 15), (30, 45)}


def test_masks_of_a_teacher_are_added(image):
    items = [{**item, "confidence": 0.5} for item in image["annotations"][0]]
    taught = {**image, "annotations": [items], "has_confidences": True}
    sample = _sample(_mapper("INPUT.PSEUDO.AUGMENTATIONS", ["rotation"]), taught, 1)
    assert sample["supervision"] == "teacher"
    assert sample["tracks"]["teacher_confidence"].unique().tolist() == [0.5]
    assert bool(sample["tracks"]["teacher_masks"].flatten(1).any(1).all())


def test_area_that_a_rotation_fills_in_is_not_valid(image):
    mapper = _mapper("INPUT.PSEUDO.AUGMENTATIONS", ["rotation"], "MODEL.SPATIAL_MASK.ENABLED", True)
    area = _sample(mapper, image, 1)["valid_area"]
    assert area.shape == (HEIGHT, WIDTH)
    assert 0.6 < float(area.float().mean()) < 1.0
    assert not bool(area[0, 0] & area[0, -1] & area[-1, 0] & area[-1, -1])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([2, 2, 6, 6], True),
        ([-2, 2, 2, 6], True),  # half of it is left
        ([-3, 2, 2, 6], False),
        ([2, 8, 6, 12.5], False),
        ([12, 2, 15, 6], False),  # the only one is gone
    ],
)
def test_what_keeps_boxes_tight(box, expected):
    assert keeps_boxes_tight(np.array([box], dtype=float), (10, 10)) is expected


JITTER = (
    *("INPUT.LSJ_AUG.ENABLED", True, "INPUT.LSJ_AUG.IMAGE_SIZE", 24),
    *("INPUT.LSJ_AUG.MIN_SCALE", 0.5, "INPUT.LSJ_AUG.MAX_SCALE", 2.0),
)


def test_large_scale_jitter_is_one_draw_per_clip_and_cuts_a_square():
    augmentation = build_clip_augmentation(data_cfg(*JITTER), True, "mask")
    frame = np.random.RandomState(0).randint(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    shapes = set()
    for seed in range(30):
        np.random.seed(seed)
        frames, transforms = augmentation([frame, frame.copy(), frame.copy()])
        assert all(np.array_equal(one, frames[0]) for one in frames)
        assert max(frames[0].shape[:2]) <= 24
        mask = transforms.apply_segmentation(np.ones((HEIGHT, WIDTH), dtype=np.uint8))
        assert mask.shape == frames[0].shape[:2]
        shapes.add(mask.shape)
    assert len(shapes) > 5


def test_large_scale_jitter_of_boxes_keeps_half_of_each_or_nothing():
    augmentation = build_clip_augmentation(data_cfg(*JITTER), True, "box")
    frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    boxes = np.array([[2.0, 3, 28, 18]])
    for seed in range(30):
        np.random.seed(seed)
        (out,), transforms = augmentation([frame], boxes)
        assert keeps_boxes_tight(transforms.apply_box(boxes), out.shape[:2])


def test_whole_scale_cuts_nothing():
    frame = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    transform = LargeScaleJitter(24, 0.5, 2.0).whole(frame)
    assert transform.apply_image(frame).shape == (16, 24, 3)
