"""Generated videos: textured shapes that move, turn, overlap and leave, with visible masks.

Shape letters: N objects, T frames, (H, W) pixels.
"""

from __future__ import annotations

import colorsys
from dataclasses import asdict, dataclass

import numpy as np

from maskfreevis_ext.errors import DataError

#: Classes in the order of their ids (1, 2, 3). Share of its bounding box that the upright shape
#: fills: 0.79, 0.5, 0.43.
CLASS_NAMES = ("circle", "triangle", "star")

#: Hue interval of each class (0..1, may start below 0). The background has little saturation, so
#: that colour tells an object from it, as the pairwise losses assume.
_HUES = ((-0.04, 0.07), (0.54, 0.68), (0.26, 0.42))

#: Radius of each shape relative to the object's size, so that the areas are alike.
_RADII = (1.0, 1.3, 1.3)

#: A track is absent from a frame where fewer pixels than this are visible ...
_MIN_VISIBLE_PIXELS = 24
#: ... or a smaller share of its whole shape.
_MIN_VISIBLE_SHARE = 0.1


@dataclass(frozen=True)
class SyntheticConfig:
    """Sizes and counts of a generated data set.

    Attributes:
        num_train: Training videos, >= 0.
        num_val: Validation videos, >= 0.
        num_frames: Frames of each video, >= 1.
        height: Pixels, >= 48.
        width: Pixels, >= 48.
        min_objects: Fewest objects of a video, >= 1.
        max_objects: Most objects of a video.
        seed: Seed of all random numbers, >= 0; equal seeds give equal data sets.
        image_format: "jpg" or "png".
        train_masks: Also write ``instances_train_masks.json``, the training split with masks.
        mask_fraction: Above 0: also write ``instances_train_mixed.json``, in which this share of
            the videos, evenly spread, has masks.

    Raises:
        DataError: A value is out of range.
    """

    num_train: int = 120
    num_val: int = 24
    num_frames: int = 8
    height: int = 96
    width: int = 128
    min_objects: int = 1
    max_objects: int = 3
    seed: int = 0
    image_format: str = "jpg"
    train_masks: bool = False
    mask_fraction: float = 0.0

    def __post_init__(self) -> None:
        checks = (
            (self.num_train >= 0 and self.num_val >= 0, "num_train and num_val must be >= 0"),
            (self.num_frames >= 1, "num_frames must be >= 1"),
            (min(self.height, self.width) >= 48, "height and width must be >= 48 pixels"),
            (max(self.height, self.width) <= 4096, "height and width must be <= 4096 pixels"),
            (1 <= self.min_objects <= self.max_objects, "objects must be 1 <= min <= max"),
            (self.seed >= 0, "seed must be >= 0"),
            (0 <= self.mask_fraction <= 1, "mask_fraction must be in [0, 1]"),
            (self.image_format in ("jpg", "png"), 'image_format must be "jpg" or "png"'),
        )
        for is_good, text in checks:
            if not is_good:
                raise DataError(f"Synthetic data: {text}, got {asdict(self)}.")


@dataclass(frozen=True)
class _Texture:
    """Base colour times (1 + a sum of plane waves): waves (K, 4) of (kx, ky, phase, amplitude)."""

    color: np.ndarray
    waves: np.ndarray

    def paint(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Colour at the points (x, y), float (..., 3) in [0, 255]."""
        kx, ky, phase, amplitude = self.waves.T
        angle = x[..., None] * kx + y[..., None] * ky + phase
        gain = 1.0 + (np.sin(angle) * amplitude).sum(axis=-1)
        return np.clip(self.color * gain[..., None], 0.0, 255.0)


@dataclass(frozen=True)
class _Shape:
    """One object: class, appearance and path; the frame index runs from 0 to T - 1."""

    class_index: int
    texture: _Texture
    size: float  # pixels
    growth: float  # log of the size ratio between the last frame and the first
    start: np.ndarray  # (x, y) of the centre in frame 0, pixels
    velocity: np.ndarray  # (x, y), pixels per frame
    sway: np.ndarray  # (amplitude in pixels, radians per frame, phase), across the velocity
    angle: float  # radians
    spin: float  # radians per frame

    def pose(self, frame: int, num_frames: int) -> tuple[np.ndarray, float, float]:
        """Centre (x, y), size and angle in a frame."""
        amplitude, omega, phase = self.sway
        speed = float(np.hypot(*self.velocity))
        across = np.array([-self.velocity[1], self.velocity[0]]) / max(speed, 1e-6)
        offset = amplitude * (np.sin(omega * frame + phase) - np.sin(phase))
        centre = self.start + self.velocity * frame + across * offset
        size = self.size * np.exp(self.growth * frame / max(num_frames - 1, 1))
        return centre, float(size), self.angle + self.spin * frame


def _outline(class_index: int) -> np.ndarray | None:
    """Corners (K, 2) of a class at size 1 around the origin; None for the circle."""
    name, radius = CLASS_NAMES[class_index], _RADII[class_index]
    if name == "circle":
        return None
    count = 3 if name == "triangle" else 10
    angles = 2 * np.pi * np.arange(count) / count - np.pi / 2
    radii = np.full(count, radius)
    if name == "star":
        radii[1::2] *= 0.5
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _signed_distance(x: np.ndarray, y: np.ndarray, class_index: int) -> np.ndarray:
    """Distance of the points to the outline at size 1, negative inside."""
    corners = _outline(class_index)
    if corners is None:
        return np.hypot(x, y) - _RADII[class_index]
    points = np.stack([x, y], axis=-1)
    distance = np.full(x.shape, np.inf)
    is_inside = np.zeros(x.shape, dtype=bool)
    for first, second in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge = second - first
        share = np.clip(((points - first) @ edge) / (edge @ edge), 0.0, 1.0)
        distance = np.minimum(
            distance, np.linalg.norm(points - first - share[..., None] * edge, axis=-1)
        )
        crosses = (first[1] > y) != (second[1] > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            at_x = first[0] + (y - first[1]) * edge[0] / edge[1]
        is_inside ^= crosses & (x < at_x)
    return np.where(is_inside, -distance, distance)


def _random_waves(
    rng: np.random.Generator, wavelengths: tuple[float, float], amplitude: float, count: int
) -> np.ndarray:
    """Plane waves of random direction; wavelengths in pixels, amplitudes sum to ``amplitude``."""
    shortest, longest = np.log(wavelengths)
    length = np.exp(rng.uniform(shortest, longest, size=count))
    direction = rng.uniform(0, 2 * np.pi, size=count)
    share = rng.uniform(0.5, 1.0, size=count)
    return np.stack(
        [
            2 * np.pi / length * np.cos(direction),
            2 * np.pi / length * np.sin(direction),
            rng.uniform(0, 2 * np.pi, size=count),
            amplitude * share / share.sum(),
        ],
        axis=1,
    )


def _random_texture(
    rng: np.random.Generator,
    hue: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> _Texture:
    # Fine waves are seen as texture but mostly vanish in the losses' 4x4 average; coarse ones shade
    # the surface so slowly that neighbouring cells keep similar colours.
    color = colorsys.hsv_to_rgb(
        rng.uniform(*hue) % 1.0, rng.uniform(*saturation), rng.uniform(*value)
    )
    fine = _random_waves(rng, (3.0, 5.0), rng.uniform(0.08, 0.22), 3)
    coarse = _random_waves(rng, (40.0, 90.0), rng.uniform(0.04, 0.09), 2)
    return _Texture(255.0 * np.asarray(color), np.concatenate([fine, coarse]))


def _random_shape(rng: np.random.Generator, config: SyntheticConfig) -> _Shape:
    class_index = int(rng.integers(len(CLASS_NAMES)))
    side = min(config.height, config.width)
    extent = np.array([config.width, config.height], dtype=float)
    # 0.11 of the shorter side keeps the smallest object above 20 pixels at the default 96 rows.
    size = side * rng.uniform(0.115, 0.21)
    heading = rng.uniform(0, 2 * np.pi)
    speed = side * rng.uniform(0.005, 0.045)
    middle = extent * rng.uniform(0.2, 0.8, size=2)  # the centre at mid-video
    if rng.random() < 0.2:  # enters or leaves: crosses the border, faster than the others
        axis, end = int(rng.integers(2)), int(rng.integers(2))
        middle[axis] = extent[axis] * end
        heading = np.pi / 2 * (axis + 2 * int(rng.integers(2))) + rng.uniform(-0.5, 0.5)
        speed = side * rng.uniform(0.035, 0.065)
    velocity = speed * np.array([np.cos(heading), np.sin(heading)])
    return _Shape(
        class_index=class_index,
        texture=_random_texture(rng, _HUES[class_index], (0.55, 0.85), (0.6, 0.9)),
        size=float(size),
        growth=float(rng.uniform(-0.2, 0.2)),
        start=middle - velocity * (config.num_frames - 1) / 2,
        velocity=velocity,
        sway=np.array([side * rng.uniform(0, 0.03), rng.uniform(0.3, 0.8), rng.uniform(0, 6.28)]),
        angle=float(rng.uniform(0, 2 * np.pi)),
        spin=float(rng.uniform(-0.12, 0.12)),
    )


def _random_shapes(rng: np.random.Generator, config: SyntheticConfig, count: int) -> list[_Shape]:
    """Draw shapes that may overlap, but whose centres are seldom close at mid-video."""
    middle = config.num_frames // 2
    shapes: list[_Shape] = []
    for _ in range(count):
        for _ in range(8):
            shape = _random_shape(rng, config)
            centre = shape.pose(middle, config.num_frames)[0]
            gaps = [
                np.hypot(*(other.pose(middle, config.num_frames)[0] - centre))
                / (other.size + shape.size)
                for other in shapes
            ]
            if all(gap > 0.8 for gap in gaps):
                break
        shapes.append(shape)
    return shapes


def render_video(
    rng: np.random.Generator, config: SyntheticConfig
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Draw one video.

    Args:
        rng: Source of all randomness.
        config: Sizes and counts; ``num_train`` and ``num_val`` are not used.

    Returns:
        Frames (T, H, W, 3) uint8 RGB; visible masks (N, T, H, W) bool, disjoint in each frame and
        empty where the object is (almost) hidden or out of view; the class index of each object. An
        object that is never visible is left out, so N may be 0.
    """
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    shapes = _random_shapes(rng, config, count)
    ground = _random_texture(rng, (0.0, 1.0), (0.05, 0.22), (0.3, 0.8))
    drift = rng.uniform(-1.0, 1.0, size=2)
    y, x = np.mgrid[0 : config.height, 0 : config.width].astype(float)
    frames = np.empty((config.num_frames, config.height, config.width, 3), dtype=np.uint8)
    masks = np.zeros((count, config.num_frames, config.height, config.width), dtype=bool)
    for t in range(config.num_frames):
        canvas = ground.paint(x + drift[0] * t, y + drift[1] * t)
        for i, shape in enumerate(shapes):  # later ones lie on top
            masks[i, t] = _draw_shape(canvas, shape, t, config.num_frames)
            masks[:i, t] &= ~masks[i, t]
        canvas += rng.normal(0.0, 1.0, size=canvas.shape)  # the camera's noise
        frames[t] = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    _drop_slivers(masks, shapes)
    keep = [i for i in range(count) if masks[i].any()]
    return frames, masks[keep], [shapes[i].class_index for i in keep]


def _draw_shape(canvas: np.ndarray, shape: _Shape, frame: int, num_frames: int) -> np.ndarray:
    """Blend a shape into the canvas (H, W, 3), in place; returns its pixels (H, W) bool."""
    height, width = canvas.shape[:2]
    centre, size, angle = shape.pose(frame, num_frames)
    y, x = np.mgrid[0:height, 0:width]
    dx, dy = x + 0.5 - centre[0], y + 0.5 - centre[1]
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = (cos * dx + sin * dy) / size, (cos * dy - sin * dx) / size
    distance = size * _signed_distance(u, v, shape.class_index)
    alpha = np.clip(0.5 - distance, 0.0, 1.0)[..., None]  # one pixel of anti-aliasing
    # The texture turns and grows with the object.
    color = shape.texture.paint(u * shape.size, v * shape.size)
    canvas *= 1.0 - alpha
    canvas += alpha * color
    return distance < 0


def _whole_area(class_index: int, size: float) -> float:
    corners = _outline(class_index)
    if corners is None:
        return np.pi * (_RADII[class_index] * size) ** 2
    x, y = corners.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) * size**2


def _drop_slivers(masks: np.ndarray, shapes: list[_Shape]) -> None:
    """Clear, in place, the masks (N, T, H, W) of objects that are almost hidden in a frame."""
    num_frames = masks.shape[1]
    for i, shape in enumerate(shapes):
        for t in range(num_frames):
            whole = _whole_area(shape.class_index, shape.pose(t, num_frames)[1])
            if masks[i, t].sum() < max(_MIN_VISIBLE_PIXELS, _MIN_VISIBLE_SHARE * whole):
                masks[i, t] = False
