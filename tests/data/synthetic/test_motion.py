"""Paths and the camera's view."""

from __future__ import annotations

import numpy as np
import pytest

from maskfreevis_ext.data.synthetic.motion import Path, View


def test_view_maps_to_the_world_and_back():
    view = View(np.array([64.0, 48.0]), offset=np.array([3.0, -5.0]), zoom=1.3, angle=0.4)
    points = np.random.default_rng(0).uniform(0, 100, size=(10, 2))
    for point in points:
        x, y = view.to_image(point)
        np.testing.assert_allclose(view.to_world(x, y), point)


def test_a_camera_at_rest_changes_no_bit():
    offset, zoom, angle = Path().pose(3.5, 8)
    view = View(np.array([63.5, 48.0]), offset, zoom, angle)
    y, x = np.mgrid[0:96, 0:127] + 0.5
    world_x, world_y = view.to_world(x, y)
    assert (world_x == x).all()
    assert (world_y == y).all()


def test_path_moves_grows_and_turns():
    path = Path(
        size=10,
        growth=np.log(2),
        start=np.array([1.0, 2.0]),
        velocity=np.array([2.0, 0.0]),
        angle=0.5,
        spin=0.1,
    )
    centre, size, angle = path.pose(4, num_frames=5)
    np.testing.assert_allclose(centre, [9, 2])
    assert size == pytest.approx(20)
    assert angle == pytest.approx(0.9)
    assert path.pose(0, num_frames=1)[1] == 10
