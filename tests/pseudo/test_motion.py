"""Motion against the background."""

from __future__ import annotations

import cv2
import numpy as np

from maskfreevis_ext.pseudo.motion import residual_motion

SIZE = (96, 128)


def _clip(object_step: int, camera_step: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A textured square that moves over a textured ground that moves too."""
    random = np.random.RandomState(0)
    ground = cv2.GaussianBlur(random.randint(0, 256, (96, 256)).astype(np.uint8), (0, 0), 2)
    patch = cv2.GaussianBlur(random.randint(0, 256, (32, 32)).astype(np.uint8), (0, 0), 1.5)
    frames, boxes = [], []
    for t in range(3):
        frame = ground[:, 20 + camera_step * t :][:, : SIZE[1]].copy()
        x = 40 + object_step * t
        frame[30:62, x : x + 32] = patch
        frames.append(frame)
        boxes.append((x, 30, x + 32, 62))
    return frames, np.array([boxes], dtype=float)


def test_object_moves_and_background_does_not_under_a_moving_camera() -> None:
    frames, boxes = _clip(object_step=4, camera_step=3)
    motion = residual_motion(frames, boxes, 1)
    assert motion.shape == (*SIZE, 6)
    assert motion.dtype == np.float32
    inside = np.zeros(SIZE, dtype=bool)
    inside[34:58, 48:72] = True
    outside = np.ones(SIZE, dtype=bool)
    outside[20:72, 30:90] = False
    for length in (motion[..., 0], motion[..., 3]):
        assert np.median(length[inside]) > 3 * np.median(length[outside])
    assert np.median(motion[..., 1][inside]) < 0  # to the frame before it goes left
    assert np.median(motion[..., 4][inside]) > 0


def test_one_frame_has_no_motion() -> None:
    frames, boxes = _clip(4, 0)
    assert not residual_motion(frames[:1], boxes[:, :1], 0).any()


def test_ends_and_full_boxes_are_finite() -> None:
    frames, boxes = _clip(4, 0)
    boxes[0, 0] = 0, 0, SIZE[1], SIZE[0]
    boxes[0, 2] = 0
    for t in range(3):
        assert np.isfinite(residual_motion(frames, boxes, t)).all()
    assert np.array_equal(residual_motion(frames, boxes, 0), residual_motion(frames, boxes, 0))
