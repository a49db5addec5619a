"""Paths of objects and of the camera."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def _nothing() -> np.ndarray:
    return np.zeros(2)


@dataclass(frozen=True)
class Path:
    """Position, size and angle over time; the time is a frame number, fractions included.

    Attributes:
        size: Size at time 0, pixels; for a camera the magnification.
        growth: Logarithm of the size ratio between the last frame and the first.
        start: (x, y) of the centre at time 0, pixels.
        velocity: (x, y), pixels per frame.
        sway: Amplitude in pixels, radians per frame and phase of a swing across the velocity.
        angle: Angle at time 0, radians.
        spin: Radians per frame.
    """

    size: float = 1.0
    growth: float = 0.0
    start: np.ndarray = field(default_factory=_nothing)
    velocity: np.ndarray = field(default_factory=_nothing)
    sway: tuple[float, float, float] = (0.0, 0.0, 0.0)
    angle: float = 0.0
    spin: float = 0.0

    def pose(self, time: float, num_frames: int) -> tuple[np.ndarray, float, float]:
        """Centre (x, y), size and angle at a time of a video of ``num_frames`` frames."""
        amplitude, omega, phase = self.sway
        speed = float(np.hypot(*self.velocity))
        across = np.array([-self.velocity[1], self.velocity[0]]) / max(speed, 1e-6)
        offset = amplitude * (np.sin(omega * time + phase) - np.sin(phase))
        centre = self.start + self.velocity * time + across * offset
        size = self.size * np.exp(self.growth * time / max(num_frames - 1, 1))
        return centre, float(size), self.angle + self.spin * time


@dataclass(frozen=True)
class View:
    """How the camera maps the world onto the image at one time.

    Attributes:
        middle: (x, y) of the image's middle, pixels; the camera zooms and turns around it.
        offset: (x, y) by which the world is shifted in the image, pixels.
        zoom: Magnification, > 0.
        angle: Angle by which the world is turned in the image, radians.
    """

    middle: np.ndarray
    offset: np.ndarray
    zoom: float
    angle: float

    def to_image(self, point: np.ndarray) -> np.ndarray:
        """Image coordinates of a world point (2,)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x, y = point - self.middle
        turned = np.array([cos * x - sin * y, sin * x + cos * y])
        return self.middle + self.offset + self.zoom * turned

    def to_world(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World coordinates of image points; the inverse of ``to_image``."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        dx = (x - self.middle[0] - self.offset[0]) / self.zoom
        dy = (y - self.middle[1] - self.offset[1]) / self.zoom
        return self.middle[0] + cos * dx + sin * dy, self.middle[1] + cos * dy - sin * dx
