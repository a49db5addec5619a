"""The levels of difficulty, and the choice of a random scene of each.

Level 0: textured shapes (disc, triangle, five-pointed star), a hue for each class, a dull ground.
Level 1: two-toned, grainy surfaces of procedural noise; dull unannotated clutter behind the
    objects; a slowly moving camera; more change of scale, rotation, and objects that enter or
    leave. The hue still tells the class.
Level 2: pieces of photographs (a quarter: noise of any hue) as objects, clutter and ground; only
    the form tells the class. Ellipses, rings, thin triangles, stars of four and six tips;
    unannotated things in front; the camera pans, zooms and turns; motion blur.
Level 3: most objects are cut from the photograph of the ground and have nearly its mean colour;
    thin rings, thin stars, holes in all classes; more occlusion, faster motion, longer blur.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from maskfreevis_ext.data.synthetic.config import CLASS_NAMES, SyntheticConfig
from maskfreevis_ext.data.synthetic.looks import (
    Painter,
    noise_looks,
    paint_wave_ground,
    paint_waves,
    photo_looks,
)
from maskfreevis_ext.data.synthetic.motion import Path
from maskfreevis_ext.data.synthetic.outlines import OUTLINES, random_bar, random_blob
from maskfreevis_ext.data.synthetic.scene import Scene, Thing
from maskfreevis_ext.data.synthetic.textures import Texture


@dataclass(frozen=True)
class Level:
    """What the videos of a level contain; lengths are relative to the frame's shorter side.

    Attributes:
        outlines: Names in ``OUTLINES`` of the forms of each class.
        uses_photographs: Surfaces are photographs, not noise, and colour does not tell the class.
        crossing: Share of the objects that cross the border of the image at mid-video.
        growth: Greatest logarithm of the size ratio between last and first frame.
        spin: Fastest rotation, radians per frame.
        gap: Objects whose centres at mid-video are closer than this, in sums of their sizes, are
            placed anew (eight times at most).
        clutter: Fewest and most unannotated things behind the objects.
        occluders: Fewest and most unannotated things in front of them.
        pan: Greatest shift of the camera in a frame.
        camera_growth: As ``growth``, for the camera's magnification.
        camera_spin: As ``spin``, for the camera.
        exposure: Longest exposure, in frames.
        samples: Moments of the exposure that are averaged, odd.
        alike: Share of the objects that are cut from the photograph of the ground and have its mean
            colour.
        grain: Standard deviation of the camera's noise, in grey levels.
    """

    outlines: tuple[tuple[str, ...], ...] = (("disc",), ("triangle",), ("star",))
    uses_photographs: bool = False
    crossing: float = 0.2
    growth: float = 0.2
    spin: float = 0.12
    gap: float = 0.8
    clutter: tuple[int, int] = (0, 0)
    occluders: tuple[int, int] = (0, 0)
    pan: float = 0.0
    camera_growth: float = 0.0
    camera_spin: float = 0.0
    exposure: float = 0.0
    samples: int = 1
    alike: float = 0.0
    grain: float = 1.0


_MORE_OUTLINES = (
    ("disc", "ellipse", "ring"),
    ("triangle", "thin_triangle"),
    ("star", "star4", "star6"),
)
_ALL_OUTLINES = (
    (*_MORE_OUTLINES[0], "thin_ring"),
    (*_MORE_OUTLINES[1], "triangle_with_hole"),
    (*_MORE_OUTLINES[2], "thin_star", "star_with_hole"),
)

#: The levels, by number; the module's docstring describes them.
LEVELS = (
    Level(),
    Level(
        crossing=0.3,
        growth=0.35,
        spin=0.15,
        clutter=(1, 3),
        pan=0.015,
        camera_growth=0.05,
        camera_spin=0.005,
    ),
    Level(
        outlines=_MORE_OUTLINES,
        uses_photographs=True,
        crossing=0.35,
        growth=0.5,
        spin=0.2,
        clutter=(1, 3),
        occluders=(0, 1),
        pan=0.03,
        camera_growth=0.15,
        camera_spin=0.015,
        exposure=0.6,
        samples=3,
        grain=2.0,
    ),
    Level(
        outlines=_ALL_OUTLINES,
        uses_photographs=True,
        crossing=0.4,
        growth=0.7,
        spin=0.3,
        gap=0.5,
        clutter=(1, 4),
        occluders=(1, 2),
        pan=0.05,
        camera_growth=0.25,
        camera_spin=0.03,
        exposure=0.9,
        samples=5,
        alike=0.7,
        grain=3.0,
    ),
)


def random_scene(rng: np.random.Generator, config: SyntheticConfig) -> Scene:
    """Choose what a video of the config's level shows.

    Args:
        rng: Source of all randomness.
        config: Level, sizes and counts of objects.

    Returns:
        The scene; its last things may be unannotated ones in front of the objects.

    Raises:
        DataError: The level needs photographs that are not there.
    """
    level = LEVELS[config.level]
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    if config.level == 0:
        # The quickstart's data: the order of its random numbers must not change.
        objects = _random_objects(rng, config, count, paint_waves)
        ground = paint_wave_ground(rng)
        drift = rng.uniform(-1.0, 1.0, size=2)
        return Scene(ground, tuple(objects), drift, camera=Path(), grain=level.grain)
    if level.uses_photographs:
        looks = photo_looks(rng, config.height, config.width, level.alike)
    else:
        looks = noise_looks(rng, config.height, config.width)
    objects = _random_objects(rng, config, count, looks.paint_object)
    behind = _random_clutter(rng, config, level.clutter, looks.paint_clutter)
    in_front = _random_clutter(rng, config, level.occluders, looks.paint_clutter)
    return Scene(
        ground=looks.ground,
        things=(*behind, *objects, *in_front),
        drift=np.zeros(2),
        camera=_random_camera(rng, config),
        exposure=float(rng.uniform(0.5, 1.0)) * level.exposure,
        samples=level.samples,
        grain=level.grain,
    )


def _random_objects(
    rng: np.random.Generator, config: SyntheticConfig, count: int, paint: Painter
) -> list[Thing]:
    """Objects that may overlap, but whose centres are seldom close at mid-video."""
    middle = config.num_frames // 2
    objects: list[Thing] = []
    for _ in range(count):
        for _ in range(8):
            candidate = _random_object(rng, config, paint)
            centre = candidate.path.pose(middle, config.num_frames)[0]
            gaps = [
                np.hypot(*(other.path.pose(middle, config.num_frames)[0] - centre))
                / (other.path.size + candidate.path.size)
                for other in objects
            ]
            if all(gap > LEVELS[config.level].gap for gap in gaps):
                break
        objects.append(candidate)
    return objects


def _random_object(rng: np.random.Generator, config: SyntheticConfig, paint: Painter) -> Thing:
    level = LEVELS[config.level]
    class_index = int(rng.integers(len(CLASS_NAMES)))
    side = min(config.height, config.width)
    extent = np.array([config.width, config.height], dtype=float)
    # 0.11 of the shorter side keeps the smallest object above 20 pixels at the default 96 rows.
    size = side * rng.uniform(0.115, 0.21)
    heading = rng.uniform(0, 2 * np.pi)
    speed = side * rng.uniform(0.005, 0.045)
    middle = extent * rng.uniform(0.2, 0.8, size=2)  # the centre at mid-video
    if rng.random() < level.crossing:  # enters or leaves, faster than the others
        axis, end = int(rng.integers(2)), int(rng.integers(2))
        middle[axis] = extent[axis] * end
        heading = np.pi / 2 * (axis + 2 * int(rng.integers(2))) + rng.uniform(-0.5, 0.5)
        speed = side * rng.uniform(0.035, 0.065)
    velocity = speed * np.array([np.cos(heading), np.sin(heading)])
    texture = paint(rng, class_index)
    path = Path(
        size=float(size),
        growth=float(rng.uniform(-level.growth, level.growth)),
        start=middle - velocity * (config.num_frames - 1) / 2,
        velocity=velocity,
        sway=(side * rng.uniform(0, 0.03), rng.uniform(0.3, 0.8), rng.uniform(0, 6.28)),
        angle=float(rng.uniform(0, 2 * np.pi)),
        spin=float(rng.uniform(-level.spin, level.spin)),
    )
    names = level.outlines[class_index]
    # One form needs no random number.
    name = names[int(rng.integers(len(names)))] if len(names) > 1 else names[0]
    return Thing(OUTLINES[name], texture, path, class_index)


def _random_clutter(
    rng: np.random.Generator,
    config: SyntheticConfig,
    counts: tuple[int, int],
    paint: Callable[[np.random.Generator], Texture],
) -> list[Thing]:
    """Slow bars and blobs anywhere in the image, without annotation."""
    side = min(config.height, config.width)
    things = []
    for _ in range(int(rng.integers(counts[0], counts[1] + 1))):
        outline = random_bar(rng) if rng.random() < 0.5 else random_blob(rng)
        path = Path(
            size=float(side * rng.uniform(0.1, 0.2)),
            start=np.array([config.width, config.height]) * rng.uniform(0.1, 0.9, size=2),
            velocity=side * rng.uniform(-0.015, 0.015, size=2),
            angle=float(rng.uniform(0, 2 * np.pi)),
            spin=float(rng.uniform(-0.05, 0.05)),
        )
        things.append(Thing(outline, paint(rng), path, class_index=None))
    return things


def _random_camera(rng: np.random.Generator, config: SyntheticConfig) -> Path:
    """A camera that is near its place of rest at mid-video."""
    level = LEVELS[config.level]
    middle = (config.num_frames - 1) / 2
    pan = level.pan * min(config.height, config.width)
    velocity = rng.uniform(-pan, pan, size=2)
    growth = float(rng.uniform(-level.camera_growth, level.camera_growth))
    spin = float(rng.uniform(-level.camera_spin, level.camera_spin))
    return Path(
        size=float(np.exp(-growth / 2)),
        growth=growth,
        start=-velocity * middle,
        velocity=velocity,
        sway=(pan * rng.uniform(0, 1.0), rng.uniform(0.5, 1.5), rng.uniform(0, 2 * np.pi)),
        angle=-spin * middle,
        spin=spin,
    )
