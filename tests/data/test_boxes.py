"""Tight boxes of NumPy masks."""

from __future__ import annotations

import numpy as np
import torch

from maskfreevis_ext.data.boxes import overlap_and_union, tight_box
from maskfreevis_ext.ops.boxes import masks_to_boxes


def test_box_ends_one_past_the_last_pixel():
    mask = np.zeros((20, 30), dtype=bool)
    mask[4, 3] = mask[7, 5] = True

    assert tight_box(mask) == (3, 4, 6, 8)
    assert tight_box(np.ones((2, 3), dtype=bool)) == (0, 0, 3, 2)
    assert tight_box(np.zeros((2, 3), dtype=bool)) is None


def test_arrays_and_tensors_have_the_same_boxes():
    masks = np.random.default_rng(0).random((50, 9, 7)) < 0.06

    boxes = [tight_box(mask) or (0, 0, 0, 0) for mask in masks]

    np.testing.assert_array_equal(masks_to_boxes(torch.from_numpy(masks)).numpy(), boxes)


def test_overlap_and_union_broadcast():
    one = np.array([[0.0, 0, 4, 4], [0, 0, 0, 0]])[:, None]
    other = np.array([[2.0, 2, 6, 6], [4, 4, 5, 5]])[None]

    overlap, union = overlap_and_union(one, other)

    assert overlap.tolist() == [[4, 0], [0, 0]]
    assert union.tolist() == [[28, 17], [16, 1]]
