"""Polygons: valid ones are drawn, broken ones never reach pycocotools."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pycocotools import mask as mask_util

from maskfreevis_ext import polygons as polygons_module
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.polygons import MAX_OUTLINE, clean_polygons, segmentation_to_rle
from maskfreevis_ext.rle import decode_rle


def test_segmentation_to_rle_of_polygons_counts_the_dropped_ones():
    square = [2, 3, 8, 3, 8, 9, 2, 9]
    rle, area, dropped = segmentation_to_rle([square, [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7]], 20, 30)
    assert (area, dropped) == (36, 2)
    np.testing.assert_array_equal(mask_util.toBbox(rle), [2, 3, 6, 6])
    assert segmentation_to_rle([[1, 2, 3, 4]], 20, 30) == (None, 0, 1)
    assert segmentation_to_rle([], 20, 30) == (None, 0, 0)
    assert segmentation_to_rle(None, 20, 30) == (None, 0, 0)


def test_segmentation_to_rle_joins_polygons():
    left, right = [0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 14, 10, 14, 14, 10, 14]
    rle, area, _ = segmentation_to_rle([left, right], 20, 30)
    assert area == 32
    assert decode_rle(rle)[12, 12]
    assert not decode_rle(rle)[7, 7]


@pytest.mark.parametrize(
    "polygons",
    [
        "text",
        {"a": 1},
        [5],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, float("inf")]],
        [[1, 2, 3, 4, 5, "6"]],
        [[1, 2, 3, 4, 5, None]],
        [[1, 2, 3, 4, 5, True]],
        [[1, 2, 3, 4, 5, 10**9]],
        [[1, 2, 3, 4, 5, 10**400]],
        [[[1, 2], [3, 4], [5, 6]]],
    ],
)
def test_clean_polygons_refuses(polygons):
    with pytest.raises(DataError, match="here"):
        clean_polygons(polygons, 20, 30, "here")


def test_clean_polygons_refuses_a_huge_one(monkeypatch):
    monkeypatch.setattr(polygons_module, "MAX_POLYGON_NUMBERS", 10)
    with pytest.raises(DataError, match="more than 10"):
        clean_polygons([[1.0] * 12], 20, 30)


@pytest.mark.parametrize("segmentation", [5, "text", 1.5, True])
def test_segmentation_to_rle_refuses_other_types(segmentation):
    with pytest.raises(DataError, match="an RLE, a list of polygons or null"):
        segmentation_to_rle(segmentation, 20, 30)


def zigzag(turns, height, width):
    """A polygon that goes up and down over the frame and far beyond it."""
    x = np.linspace(0, width, 2 * turns)
    y = np.where(np.arange(2 * turns) % 2, 2 * max(height, width), -2 * max(height, width))
    return np.stack([x, y], axis=1).ravel().tolist()


def test_zigzag_is_refused_before_pycocotools_draws_it():
    """pycocotools writes outside of its memory for this one, which ends the process."""
    with pytest.raises(DataError, match=r"here: the outline must have at most \d+ pixels.*as RLE"):
        segmentation_to_rle([zigzag(25_000, 16384, 16384)], 16384, 16384, "here")


def test_outlines_of_all_polygons_of_an_object_count_together():
    one = zigzag(10, 1080, 1920)
    count = int(MAX_OUTLINE / (20 * 4 * 1920)) + 2
    assert segmentation_to_rle([one], 1080, 1920)[1] > 0
    with pytest.raises(DataError, match="outline"):
        clean_polygons([one] * count, 1080, 1920)


def test_longest_outlines_and_many_polygons_are_drawn_soon():
    start = time.perf_counter()
    one = zigzag(MAX_OUTLINE // (2 * 4 * 1920) - 10, 1080, 1920)
    assert segmentation_to_rle([one], 1080, 1920)[1] > 0
    squares = [[x, y, x + 2, y, x + 2, y + 2, x, y + 2] for x in range(0, 400, 4) for y in (0, 9)]
    assert segmentation_to_rle(squares * 50, 1080, 1920)[1] == 200 * 4
    assert time.perf_counter() - start < 30
