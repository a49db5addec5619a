"""Outlines of the drawn things: signed distance and area, in units of the thing's size.

The catalogue ``OUTLINES`` has the forms in which each class occurs; ``random_bar`` and
``random_blob`` give forms that belong to no class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Outline:
    """A polygon or an ellipse around the origin, perhaps with a hole.

    Attributes:
        corners: Polygon, (K, 2) of (x, y); None: an ellipse.
        axes: Half axes (x, y) of the ellipse, > 0; of no meaning for a polygon.
        hole: Size of a hole of the same form around the origin, relative to the outline, in [0, 1);
            0: no hole.
    """

    corners: np.ndarray | None = None
    axes: tuple[float, float] = (1.0, 1.0)
    hole: float = 0.0

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Signed distance of the points (x, y) to the outline, negative inside.

        Exact for polygons and circles; for other ellipses its sign is exact and its value is good
        near the outline, where anti-aliasing needs it.
        """
        distance = self._outer_distance(x, y)
        if self.hole > 0:
            hole = self.hole * self._outer_distance(x / self.hole, y / self.hole)
            distance = np.maximum(distance, -hole)
        return distance

    def _outer_distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if self.corners is None:
            return _ellipse_distance(x, y, self.axes)
        return _polygon_distance(x, y, self.corners)

    @property
    def area(self) -> float:
        """Area of the outline without its hole."""
        if self.corners is None:
            outer = np.pi * self.axes[0] * self.axes[1]
        else:
            x, y = self.corners.T
            outer = 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
        return outer * (1.0 - self.hole**2)

    @property
    def reach(self) -> float:
        """Greatest distance of a point of the outline from the origin."""
        if self.corners is None:
            return max(self.axes)
        return float(np.hypot(*self.corners.T).max())


def _ellipse_distance(x: np.ndarray, y: np.ndarray, axes: tuple[float, float]) -> np.ndarray:
    # f = |(x/a, y/b)| - 1 divided by the length of its gradient: first-order distance.
    a, b = axes
    radius = np.hypot(x / a, y / b)
    slope = np.hypot(x / a**2, y / b**2)
    at_origin = slope == 0
    return (radius - 1.0) * np.where(at_origin, min(axes), radius / np.where(at_origin, 1.0, slope))


def _polygon_distance(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    squared = np.full(x.shape, np.inf)
    is_inside = np.zeros(x.shape, dtype=bool)
    for first, second in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge_x, edge_y = second - first
        from_x, from_y = x - first[0], y - first[1]
        share = (from_x * edge_x + from_y * edge_y) / (edge_x**2 + edge_y**2)
        share = np.clip(share, 0.0, 1.0)
        squared = np.minimum(
            squared, (from_x - share * edge_x) ** 2 + (from_y - share * edge_y) ** 2
        )
        crosses = (first[1] > y) != (second[1] > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            is_inside ^= crosses & (x < first[0] + from_y * edge_x / edge_y)
    distance = np.sqrt(squared)
    return np.where(is_inside, -distance, distance)


def _regular(radii: np.ndarray, stretch: float = 1.0, hole: float = 0.0) -> Outline:
    """Polygon with corners at equal angles, made ``stretch`` times longer at the same area."""
    count = len(radii)
    angles = 2 * np.pi * np.arange(count) / count - np.pi / 2
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    return Outline(corners * [stretch**-0.5, stretch**0.5], hole=hole)


def _triangle(stretch: float = 1.0, hole: float = 0.0) -> Outline:
    return _regular(np.full(3, 1.3), stretch, hole)


def _star(points: int, radius: float, waist: float, hole: float = 0.0) -> Outline:
    """Star of ``points`` tips at ``radius``; the inner corners lie at ``radius * waist``."""
    radii = np.full(2 * points, radius)
    radii[1::2] *= waist
    return _regular(radii, hole=hole)


def _ellipse(ratio: float) -> Outline:
    """Ellipse of the unit circle's area whose axes have this ratio."""
    return Outline(axes=(ratio**-0.5, ratio**0.5))


#: Forms of the classes; sizes are such that the areas (holes not counted) are alike.
OUTLINES: Mapping[str, Outline] = {
    "disc": Outline(),
    "ellipse": _ellipse(0.5),
    "ring": Outline(axes=(1.15, 1.15), hole=0.55),
    "thin_ring": Outline(axes=(1.3, 1.3), hole=0.72),
    "triangle": _triangle(),
    "thin_triangle": _triangle(stretch=2.2),
    "triangle_with_hole": _triangle(hole=0.45),
    "star": _star(5, 1.3, 0.5),
    "star4": _star(4, 1.45, 0.4),
    "star6": _star(6, 1.3, 0.55),
    "thin_star": _star(5, 1.55, 0.32),
    "star_with_hole": _star(5, 1.4, 0.55, hole=0.5),
}


def random_bar(rng: np.random.Generator) -> Outline:
    """A long rectangle, 2.4 to 4 long and 0.4 to 0.7 wide; belongs to no class."""
    length, width = rng.uniform(1.2, 2.0), rng.uniform(0.2, 0.35)
    return Outline(
        np.array([[-length, -width], [length, -width], [length, width], [-length, width]])
    )


def random_blob(rng: np.random.Generator) -> Outline:
    """An irregular polygon of 6 to 9 corners, 0.6 to 1.3 from its middle; belongs to no class."""
    count = int(rng.integers(6, 10))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.3, 0.3, size=count)) / count
    radii = rng.uniform(0.6, 1.3, size=count)
    return Outline(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None])
