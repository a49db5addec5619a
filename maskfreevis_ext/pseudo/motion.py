"""How differently each pixel moves from the background, as evidence for objects that move.

The background is what lies outside all boxes; its motion between two frames is fitted by a
homography, which is exact for a turning camera and for a flat scene.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from maskfreevis_ext.data.boxes import has_area
from maskfreevis_ext.pseudo.windows import pixel_box

#: Added to the scale of the background's residual motion, in pixels: the error of optical flow.
_FLOW_ERROR = 0.3
_SAMPLE_STEP = 8  # pixels between the points that the homography is fitted to
_FEWEST_POINTS = 20


def residual_motion(frames: Sequence[np.ndarray], boxes: np.ndarray, index: int) -> np.ndarray:
    """Motion of a frame against the background, to the frames before and after it.

    At the ends of the clip the only neighbour is used twice; a clip of one frame has no motion.

    Args:
        frames: T frames, (H, W) uint8, grey.
        boxes: (N, T, 4), x0, y0, x1, y1 in pixels; empty where an object is absent.
        index: The frame.

    Returns:
        (H, W, 6) float32; for each of the two neighbours log(1 + length), and this value times the
        direction (x, y). Lengths are in units of the median length of the background.
    """
    height, width = frames[index].shape
    if len(frames) == 1:
        return np.zeros((height, width, 6), np.float32)
    background = np.ones((height, width), dtype=bool)
    for box in boxes[:, index]:
        if has_area(box):
            x0, y0, x1, y1 = pixel_box(box, (height, width))
            background[y0:y1, x0:x1] = False
    if not background.any():
        background[:] = True
    channels = []
    for step in (-1, 1):
        other = index + step if 0 <= index + step < len(frames) else index - step
        residual = _residual_flow(frames[index], frames[other], background)
        length = np.hypot(residual[..., 0], residual[..., 1])
        scaled = np.log1p(length / (np.median(length[background]) + _FLOW_ERROR))
        direction = residual / (length[..., None] + 1e-3)
        channels += [scaled[..., None], direction * scaled[..., None]]
    return np.concatenate(channels, -1).astype(np.float32)


def _residual_flow(frame: np.ndarray, other: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Optical flow less the motion of the background, (H, W, 2) in pixels."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.asarray(estimator.calc(frame, other, np.zeros((*frame.shape, 2), np.float32)))
    rows, cols = np.mgrid[0 : frame.shape[0], 0 : frame.shape[1]]
    points = np.stack([cols, rows], -1).astype(np.float32)
    start = _SAMPLE_STEP // 2
    chosen = np.zeros_like(background)
    chosen[start::_SAMPLE_STEP, start::_SAMPLE_STEP] = True
    chosen &= background
    homography = None
    if chosen.sum() >= _FEWEST_POINTS:
        sources = points[chosen]
        cv2.setRNGSeed(0)  # RANSAC draws from OpenCV's generator
        homography, _ = cv2.findHomography(sources, sources + flow[chosen], cv2.RANSAC, 2.0)
    if homography is None:
        return flow
    moved = cv2.perspectiveTransform(points.reshape(-1, 1, 2), homography).reshape(points.shape)
    return flow - (moved - points)
