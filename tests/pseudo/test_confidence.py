"""Signs of good and of bad masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskfreevis_ext.pseudo.confidence import (
    box_agreement,
    decidedness,
    join_confidence,
    temporal_consistency,
)

SIDE = 96


def _moving() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A textured disc that moves over a textured ground in three frames."""
    random = np.random.RandomState(0)
    ground = cv2.GaussianBlur(random.randint(0, 256, (SIDE, SIDE)).astype(np.uint8), (0, 0), 1.5)
    patch = cv2.GaussianBlur(random.randint(0, 256, (SIDE, SIDE)).astype(np.uint8), (0, 0), 1.5)
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]
    pictures, masks = [], []
    for t in range(3):
        mask = (rows - 48) ** 2 + (cols - 40 - 3 * t) ** 2 < 20**2
        pictures.append(np.where(mask, np.roll(patch, 3 * t, axis=1), ground))
        masks.append(mask)
    return pictures, masks


def test_masks_that_follow_the_motion_are_consistent() -> None:
    pictures, masks = _moving()
    assert min(temporal_consistency(pictures, masks)) > 0.85


def test_mask_that_jumps_is_not() -> None:
    pictures, masks = _moving()
    masks[1] = np.roll(masks[1], 25, axis=0)
    assert max(temporal_consistency(pictures, masks)) < 0.6


def test_absent_and_single_frames_have_no_consistency() -> None:
    pictures, masks = _moving()
    alone = temporal_consistency([pictures[0], None, pictures[2]], [masks[0], None, masks[2]])
    assert alone == [None, None, None]
    assert temporal_consistency([], []) == []


def test_decided_probabilities_give_one() -> None:
    mask = np.array([True, True, False, False])
    assert decidedness(mask.astype(float), mask) == 1
    assert decidedness(np.array([0.5, 0.5, 0.5, 0.5]), mask) == pytest.approx(1 / 3)
    assert decidedness(np.zeros(4), np.zeros(4, dtype=bool)) == 0


def test_box_of_the_mask_agrees_or_not() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[2:6, 2:6] = True
    assert box_agreement(mask, np.array([2, 2, 6, 6.0])) == 1
    assert box_agreement(mask, np.array([2, 2, 10, 6.0])) == pytest.approx(0.5)
    assert box_agreement(~mask & mask, np.array([2, 2, 6, 6.0])) == 0


def test_signs_that_are_absent_do_not_count() -> None:
    assert join_confidence([0.5, None, 0.5]) == pytest.approx(0.5)
    assert join_confidence([1.0, 0.25]) == pytest.approx(0.5)
    assert join_confidence([None]) == 0
