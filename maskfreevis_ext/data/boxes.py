"""Tight boxes of NumPy masks; ``maskfreevis_ext.ops.boxes.masks_to_boxes`` is for tensors.

Everywhere in this package a box is (x0, y0, x1, y1) in pixels, pixel i covering [i, i + 1]: x1 and
y1 are one past the last pixel. Only YouTube-VIS files have (x, y, width, height).
"""

from __future__ import annotations

import numpy as np

#: (x, y, width, height) in pixels, in annotations.
Box = tuple[float, float, float, float]


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The smallest box around the true pixels of a mask.

    Args:
        mask: (H, W), bool.

    Returns:
        (x0, y0, x1, y1), or None for an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def has_area(boxes: np.ndarray) -> np.ndarray:
    """Whether boxes are not empty, which those of absent objects are.

    Args:
        boxes: (..., 4), xyxy.

    Returns:
        (...) bool.
    """
    return np.all(boxes[..., 2:] > boxes[..., :2], axis=-1)


def overlap_and_union(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas of the intersection and of the union of boxes; their quotient is the IoU.

    Args:
        one: (..., 4), xyxy; zeros for no box.
        other: (..., 4), broadcast against ``one``.

    Returns:
        Both (...), pixels.
    """
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    overlap = sides.clip(min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (one, other)]
    return overlap, areas[0] + areas[1] - overlap


def clip_to_frame(box: Box, height: int, width: int) -> tuple[Box | None, bool]:
    """The part of a box that lies inside the frame.

    Args:
        box: (x, y, width, height) in pixels, with a positive size.
        height: Of the frame, pixels.
        width: Of the frame, pixels.

    Returns:
        (x, y, width, height), or None if nothing is inside; and whether more than a thousandth of
        a pixel was cut off.
    """
    x, y, w, h = box
    x0, y0 = max(x, 0.0), max(y, 0.0)
    x1, y1 = min(x + w, float(width)), min(y + h, float(height))
    if x1 <= x0 or y1 <= y0:
        return None, True
    if (x0, y0, x1, y1) == (x, y, x + w, y + h):
        return box, False  # x1 - x0 would round
    is_clipped = max(x0 - x, y0 - y, x + w - x1, y + h - y1) > 1e-3
    return (x0, y0, x1 - x0, y1 - y0), is_clipped
