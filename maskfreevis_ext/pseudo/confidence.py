"""How far a mask can be trusted, without knowing the true one.

Three signs, each an IoU in [0, 1]: the mask with the probabilities it was made from; its tight box
with the given box; and the mask with those of the frames before and after, carried to its frame by
optical flow. T frames, (H, W) frame, P x P pixels of a window that follows the object.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from maskfreevis_ext.data.boxes import overlap_and_union, tight_box

#: Pixels of a side of the pictures that flow is estimated on.
FLOW_SIDE = 96


def decidedness(probability: np.ndarray, mask: np.ndarray) -> float:
    """IoU of a mask with probabilities: the IoU to be expected if they are right.

    Args:
        probability: Any shape, in [0, 1].
        mask: Same shape, bool.

    Returns:
        In [0, 1]; 0 for an empty mask.
    """
    shared = float(probability[mask].sum())
    union = float(mask.sum() + probability[~mask].sum())
    return shared / union if union else 0.0


def box_agreement(mask: np.ndarray, box: np.ndarray) -> float:
    """IoU of the tight box of a mask with the given box.

    Args:
        mask: (H, W) bool.
        box: x0, y0, x1, y1 in pixels.

    Returns:
        In [0, 1]; 0 for an empty mask.
    """
    found = tight_box(mask)
    if found is None:
        return 0.0
    overlap, union = overlap_and_union(np.asarray(found, dtype=float), box)
    return float(overlap / union)


def temporal_consistency(
    pictures: Sequence[np.ndarray | None], masks: Sequence[np.ndarray | None]
) -> list[float | None]:
    """IoU of the mask of each frame with those of its neighbours, carried to it by optical flow.

    Args:
        pictures: Windows of an object, (P, P) uint8, grey; None where it is absent.
        masks: Its masks in them, (P, P) bool; None where there is none.

    Returns:
        The mean over the neighbours, in [0, 1], per frame; None without a mask or a neighbour.
    """
    values: list[list[float]] = [[] for _ in masks]
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    for t in range(len(masks) - 1):
        for here, there in ((t, t + 1), (t + 1, t)):
            picture, other = pictures[here], pictures[there]
            mask, moved = masks[here], masks[there]
            if picture is None or other is None or mask is None or moved is None:
                continue
            flow = estimator.calc(picture, other, np.zeros((*picture.shape, 2), np.float32))
            values[here].append(_iou(mask, _carry(moved, np.asarray(flow))))
    return [float(np.mean(each)) if each else None for each in values]


def join_confidence(signs: Sequence[float | None]) -> float:
    """Geometric mean of the signs that there are, in [0, 1]; 0 without any."""
    known = [sign for sign in signs if sign is not None]
    return float(np.prod(known) ** (1 / len(known))) if known else 0.0


def _carry(mask: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """The mask of another frame at the places that the flow leads to."""
    rows, cols = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]].astype(np.float32)
    values = mask.astype(np.float32)
    border = cv2.BORDER_REPLICATE
    x, y = cols + flow[..., 0], rows + flow[..., 1]
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=border) > 0.5


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0
