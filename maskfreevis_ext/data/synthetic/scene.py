"""Draws videos: things before a ground, seen by a moving camera.

Shape letters: N objects, T frames, (H, W) pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskfreevis_ext.data.synthetic.motion import Path, View
from maskfreevis_ext.data.synthetic.outlines import Outline
from maskfreevis_ext.data.synthetic.textures import Texture

#: A track is absent from a frame where fewer pixels than this are visible ...
_MIN_VISIBLE_PIXELS = 24
#: ... or a smaller share of its whole shape.
_MIN_VISIBLE_SHARE = 0.1


@dataclass(frozen=True)
class Thing:
    """One drawn thing; its texture turns and grows with it.

    Attributes:
        outline: Form, at size 1.
        texture: Surface, in pixels at the size that the thing has at time 0.
        path: Position, size and angle in the world.
        class_index: Class of an object; None: clutter, which is drawn but not annotated.
    """

    outline: Outline
    texture: Texture
    path: Path
    class_index: int | None


@dataclass(frozen=True)
class Scene:
    """What a video shows.

    Attributes:
        ground: Surface behind everything.
        things: From the farthest to the nearest; nearer ones cover farther ones.
        drift: (x, y) by which the ground's surface moves in each frame, pixels.
        camera: Path of the camera: centre = shift of the image, size = magnification.
        exposure: Time for which the shutter is open, in frames; 0: no motion blur.
        samples: Moments of the exposure that are averaged, odd.
        grain: Standard deviation of the camera's noise, in grey levels.
    """

    ground: Texture
    things: tuple[Thing, ...]
    drift: np.ndarray
    camera: Path
    exposure: float = 0.0
    samples: int = 1
    grain: float = 1.0


def render_scene(
    rng: np.random.Generator, scene: Scene, num_frames: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Draw a scene.

    Args:
        rng: Source of the camera's noise.
        scene: What to draw.
        num_frames: T, >= 1.
        height: H, pixels.
        width: W, pixels.

    Returns:
        Frames (T, H, W, 3) uint8 RGB; visible masks (N, T, H, W) bool, disjoint in each frame and
        empty where the object is (almost) hidden or out of view; the class index of each object. An
        object that is never visible is left out, so N may be 0. Under motion blur the masks are
        those of the middle of the exposure.
    """
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    masks = np.zeros((len(scene.things), num_frames, height, width), dtype=bool)
    shutter = scene.exposure * _moments(scene.samples)
    for t in range(num_frames):
        images = []
        for moment in shutter:
            canvas, at_moment = _draw(scene, t + float(moment), num_frames, height, width)
            images.append(canvas)
            if moment == 0:
                masks[:, t] = at_moment
        image = sum(images[1:], start=images[0]) / len(images)
        image += rng.normal(0.0, scene.grain, size=image.shape)
        frames[t] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    _drop_slivers(masks, scene)
    kept = [
        (mask, thing.class_index)
        for mask, thing in zip(masks, scene.things, strict=True)
        if thing.class_index is not None and mask.any()
    ]
    kept_masks = np.array([mask for mask, _ in kept]).reshape(-1, *masks.shape[1:]).astype(bool)
    return frames, kept_masks, [class_index for _, class_index in kept]


def _moments(samples: int) -> np.ndarray:
    """Middles of ``samples`` equal parts of [-0.5, 0.5]; the middle one is exactly 0."""
    return (np.arange(samples) - (samples - 1) / 2) / samples


def _view(scene: Scene, time: float, num_frames: int, height: int, width: int) -> View:
    offset, zoom, angle = scene.camera.pose(time, num_frames)
    return View(np.array([width, height]) / 2, offset, zoom, angle)


def _draw(
    scene: Scene, time: float, num_frames: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """One moment: canvas (H, W, 3) float, visible masks (things, H, W) bool."""
    view = _view(scene, time, num_frames, height, width)
    y, x = np.mgrid[0:height, 0:width] + 0.5
    world_x, world_y = view.to_world(x, y)
    drift_x, drift_y = scene.drift * time
    # The ground's points lie at the pixels' corners.
    canvas = scene.ground.paint(world_x - 0.5 + drift_x, world_y - 0.5 + drift_y).astype(float)
    masks = np.zeros((len(scene.things), height, width), dtype=bool)
    for i, thing in enumerate(scene.things):
        masks[i] = _draw_thing(canvas, thing, view, time, num_frames)
        masks[:i] &= ~masks[i]
    return canvas, masks


def _draw_thing(
    canvas: np.ndarray, thing: Thing, view: View, time: float, num_frames: int
) -> np.ndarray:
    """Blend a thing into the canvas (H, W, 3), in place; returns its pixels (H, W) bool."""
    height, width = canvas.shape[:2]
    mask = np.zeros((height, width), dtype=bool)
    centre, size, angle = thing.path.pose(time, num_frames)
    centre, size, angle = view.to_image(centre), size * view.zoom, angle + view.angle
    reach = size * thing.outline.reach + 1.0  # and one pixel of anti-aliasing
    left, top = (int(np.clip(np.floor(v), 0, None)) for v in centre - reach)
    right, bottom = (int(np.ceil(v)) for v in np.minimum(centre + reach, [width, height]))
    if left >= right or top >= bottom:
        return mask
    window = np.s_[top:bottom, left:right]
    y, x = np.mgrid[window] + 0.5
    dx, dy = x - centre[0], y - centre[1]
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = (cos * dx + sin * dy) / size, (cos * dy - sin * dx) / size
    distance = size * thing.outline.distance(u, v)
    alpha = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    canvas[window] *= 1.0 - alpha
    canvas[window] += alpha * thing.texture.paint(u * thing.path.size, v * thing.path.size)
    mask[window] = distance < 0
    return mask


def _drop_slivers(masks: np.ndarray, scene: Scene) -> None:
    """Empty, in place, the masks (N, T, H, W) of things that are all but hidden in a frame."""
    num_frames = masks.shape[1]
    for track, thing in zip(masks, scene.things, strict=True):
        for t, mask in enumerate(track):
            size = thing.path.pose(t, num_frames)[1] * scene.camera.pose(t, num_frames)[1]
            whole = thing.outline.area * size**2
            if mask.sum() < max(_MIN_VISIBLE_PIXELS, _MIN_VISIBLE_SHARE * whole):
                mask[:] = False
