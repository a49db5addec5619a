"""Outlines: distances, areas, holes."""

from __future__ import annotations

import numpy as np
import pytest

from maskfreevis_ext.data.synthetic.outlines import OUTLINES, Outline, random_bar, random_blob

STEP = 0.01
Y, X = np.mgrid[-2:2:STEP, -2:2:STEP] + STEP / 2


@pytest.mark.parametrize("name", OUTLINES)
def test_area_and_reach_are_those_of_the_inside(name):
    outline = OUTLINES[name]
    inside = outline.distance(X, Y) < 0
    assert inside.sum() * STEP**2 == pytest.approx(outline.area, rel=0.01)
    assert np.hypot(X, Y)[inside].max() == pytest.approx(outline.reach, abs=3 * STEP)


@pytest.mark.parametrize("name", OUTLINES)
def test_distance_has_slope_one_near_the_outline(name):
    distance = OUTLINES[name].distance(X, Y)
    slope = np.hypot(*np.gradient(distance, STEP))
    assert np.median(slope[np.abs(distance) < 0.03]) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ["ring", "thin_ring", "triangle_with_hole", "star_with_hole"])
def test_a_hole_is_outside(name):
    outline = OUTLINES[name]
    assert outline.hole > 0
    assert outline.distance(np.zeros(1), np.zeros(1))[0] > 0


def test_unit_circle_has_the_exact_distance():
    np.testing.assert_allclose(Outline().distance(X, Y), np.hypot(X, Y) - 1, atol=1e-12)


def test_the_middle_of_an_ellipse_is_inside():
    assert OUTLINES["ellipse"].distance(np.zeros(1), np.zeros(1))[0] == pytest.approx(-(0.5**0.5))


def test_square_has_the_exact_distance():
    square = Outline(np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]))
    points = np.array([[0.0, 0], [0.5, 0], [2, 0], [2, 2], [0, -0.9]])
    expected = [-1, -0.5, 1, 2**0.5, -0.1]
    np.testing.assert_allclose(square.distance(*points.T), expected, atol=1e-12)


def test_clutter_contains_its_middle():
    rng = np.random.default_rng(0)
    for make in (random_bar, random_blob):
        for _ in range(20):
            outline = make(rng)
            assert outline.distance(np.zeros(1), np.zeros(1))[0] < 0
            assert outline.reach < 2.5
