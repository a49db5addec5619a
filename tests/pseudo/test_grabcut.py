"""GrabCut from boxes and from probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from maskfreevis_ext.pseudo.clip import _is_overlapped
from maskfreevis_ext.pseudo.grabcut import grabcut_from_box, sharpen


def test_grabcut_finds_a_plain_square_and_takes_any_box() -> None:
    frame = np.full((40, 50, 3), (20, 90, 20), np.uint8)
    frame += np.random.RandomState(0).randint(0, 20, frame.shape).astype(np.uint8)
    frame[15:30, 15:30] = 230, 40, 40
    mask = grabcut_from_box(frame, np.array([10.0, 10, 36, 36]), 5)
    expected = np.zeros_like(mask)
    expected[15:30, 15:30] = True
    assert (mask == expected).mean() > 0.98
    assert grabcut_from_box(frame, np.array([0.0, 0, 50, 40]), 5).all()
    assert grabcut_from_box(frame, np.array([3.0, 3, 4, 4]), 5).sum() == 1


def _red_square() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A red square on green, its box, and probabilities that miss its last third."""
    frame = np.full((40, 50, 3), (20, 90, 20), np.uint8)
    frame[15:30, 15:30] = 220, 40, 40
    frame += np.random.RandomState(0).randint(0, 20, frame.shape).astype(np.uint8)
    probability = np.full(frame.shape[:2], 0.4)
    probability[15:30, 15:25] = 0.7
    return frame, np.array([10.0, 10, 36, 36]), probability


def test_uncertain_pixels_follow_the_colours() -> None:
    frame, box, probability = _red_square()
    mask = sharpen(frame, box, probability, probability, 2)
    assert mask[15:30, 15:30].all()
    assert mask.sum() == 15 * 15


@pytest.mark.parametrize(("certain", "is_object"), [(0.9, True), (0.1, False)])
def test_certain_pixels_stay(certain: float, is_object: bool) -> None:
    frame, box, probability = _red_square()
    raw = probability.copy()
    raw[15:30, 15:18] = certain
    mask = sharpen(frame, box, np.where(raw == certain, certain, probability), raw, 2)
    assert (mask[15:30, 15:18] == is_object).all()
    assert mask[15:30, 18:25].all()


def test_mask_that_grabcut_would_lose_stays() -> None:
    frame, box, probability = _red_square()
    raw = probability.copy()
    raw[12:14, 12:14], raw[20:23, 20:23] = 0.9, 0.1  # against all colours
    assert sharpen(frame, box, probability, raw, 2)[15:30, 15:25].mean() > 0.8


def test_boxes_overlap_by_pixels() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [10, 0, 20, 10], [5, 5, 8, 8], [0, 0, 0, 0]])
    assert [_is_overlapped(boxes, index) for index in range(4)] == [True, False, True, False]
