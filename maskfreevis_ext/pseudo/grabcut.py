"""GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004) at the resolution of the frames.

(H, W) frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from maskfreevis_ext.data.boxes import has_area, overlap_and_union, tight_box
from maskfreevis_ext.pseudo.windows import box_mask, pixel_box

_CERTAIN = 0.8  # probability from which a pixel keeps its label
_MARGIN = 20  # pixels around the box that the colours of the ground are taken from
_FEWEST_PIXELS = 16  # of a box, for mixtures of five colours
_ITERATIONS = 5  # from a box
_QUICK_SIDE, _QUICK_ITERATIONS = 96, 2


@dataclass(frozen=True)
class GrabCutMasks:
    """Masks of the N objects of a clip of T frames by plain GrabCut, frame by frame.

    It is fast, and good where objects have other colours than what surrounds them.

    Attributes:
        frames: T frames, (H, W, 3) uint8, RGB.
        boxes: (N, T, 4), x0, y0, x1, y1 in pixels; empty (x1 <= x0) where an object is absent.
    """

    frames: Sequence[np.ndarray]
    boxes: np.ndarray
    _ious: dict[tuple[int, int], float] = field(default_factory=dict, repr=False)

    def mask(self, index: int, frame: int) -> np.ndarray:
        """Mask of an object in a frame, (H, W) bool; empty where it has no box."""
        box, picture = self.boxes[index, frame], self.frames[frame]
        if not has_area(box):
            return np.zeros(picture.shape[:2], dtype=bool)
        mask = grabcut_from_box(picture, box, _ITERATIONS)
        self._ious[index, frame] = _box_iou(tight_box(mask), box)
        return mask

    def confidence(self, index: int) -> float:
        """Mean IoU of the tight boxes of the masks of an object with its boxes, in [0, 1]."""
        for frame in range(len(self.frames)):
            if (index, frame) not in self._ious:
                self.mask(index, frame)
        ious = [iou for (own, _), iou in self._ious.items() if own == index]
        return float(np.mean(ious)) if ious else 0.0


def _box_iou(found: Sequence[float] | None, given: np.ndarray) -> float:
    """IoU of two boxes, x0, y0, x1, y1; 0 without a found one."""
    if found is None:
        return 0.0
    overlap, union = overlap_and_union(np.asarray(found, dtype=float), given)
    return float(overlap / union)


def sharpen(
    frame: np.ndarray, box: np.ndarray, probability: np.ndarray, iterations: int
) -> np.ndarray:
    """Decide the uncertain pixels of a box by the colours of object and ground in the frame.

    Args:
        frame: (H, W, 3) uint8, RGB.
        box: x0, y0, x1, y1 in pixels.
        probability: (H, W), where GrabCut starts from; above 0.8 a pixel stays object, below 0.2
            ground.
        iterations: Rounds of GrabCut.

    Returns:
        Mask (H, W) bool, empty outside the box. Where GrabCut leaves less than half in common with
        ``probability`` > 0.5, it has failed, and that mask stays.
    """
    start = probability > 0.5
    labels = np.where(start, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[probability > _CERTAIN] = cv2.GC_FGD
    labels[probability < 1 - _CERTAIN] = cv2.GC_BGD
    mask = _grabcut(frame, box, labels, iterations)
    return mask if (mask & start).sum() >= 0.5 * (mask | start).sum() else start


def grabcut_from_box(frame: np.ndarray, box: np.ndarray, iterations: int) -> np.ndarray:
    """Plain GrabCut started from a box.

    Args:
        frame: (H, W, 3) uint8, RGB.
        box: x0, y0, x1, y1 in pixels.
        iterations: Its rounds.

    Returns:
        Mask (H, W) bool, empty outside the box; the whole box where that is too small or the frame.
    """
    labels = np.full(frame.shape[:2], cv2.GC_PR_FGD, np.uint8)
    return _grabcut(frame, box, labels, iterations, margin=max(frame.shape[:2]))


def _grabcut(
    frame: np.ndarray,
    box: np.ndarray,
    labels: np.ndarray,
    iterations: int,
    margin: int = _MARGIN,
) -> np.ndarray:
    """GrabCut on the box and ``margin`` pixels around it; the labels outside the box are ground."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = pixel_box(box, (height, width))
    in_box = box_mask(box, (height, width))
    labels = np.where(in_box, labels, cv2.GC_BGD).astype(np.uint8)
    rows = slice(max(y0 - margin, 0), min(y1 + margin, height))
    cols = slice(max(x0 - margin, 0), min(x1 + margin, width))
    part = labels[rows, cols].copy()
    is_object = (part == cv2.GC_FGD) | (part == cv2.GC_PR_FGD)
    if in_box.sum() >= _FEWEST_PIXELS and is_object.any() and not is_object.all():
        cv2.setRNGSeed(0)  # the mixtures start from k-means
        ground, figure = np.zeros((1, 65)), np.zeros((1, 65))
        picture = np.ascontiguousarray(frame[rows, cols, ::-1])
        no_rect = (0, 0, 1, 1)  # not used with GC_INIT_WITH_MASK
        cv2.grabCut(picture, part, no_rect, ground, figure, iterations, cv2.GC_INIT_WITH_MASK)
        labels[rows, cols] = part
    return ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)) & in_box


def quick_grabcut(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """GrabCut from a box on a small picture of the box and what surrounds it, in milliseconds.

    Args:
        frame: (H, W, 3) uint8, RGB.
        box: x0, y0, x1, y1 in pixels.

    Returns:
        Mask (H, W) bool, empty outside the box.
    """
    size = frame.shape[0], frame.shape[1]
    x0, y0, x1, y1 = pixel_box(box, size)
    margin = max(_MARGIN, max(x1 - x0, y1 - y0) // 4)
    rows = slice(max(y0 - margin, 0), min(y1 + margin, size[0]))
    cols = slice(max(x0 - margin, 0), min(x1 + margin, size[1]))
    part = frame[rows, cols]
    factor = min(1.0, _QUICK_SIDE / max(part.shape[:2]))
    width, height = (max(round(factor * side), 1) for side in (part.shape[1], part.shape[0]))
    small = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    place = factor * np.array([x0 - cols.start, y0 - rows.start, x1 - cols.start, y1 - rows.start])
    found = grabcut_from_box(small, place, _QUICK_ITERATIONS).astype(np.float32)
    mask = np.zeros(size, dtype=bool)
    mask[rows, cols] = cv2.resize(found, (part.shape[1], part.shape[0])) > 0.5
    return mask & box_mask(box, size)
