"""What a trained model says about given boxes: its queries matched with them, chunk by chunk.

N objects, T frames, Q queries, M hypotheses of a query, (h, w) map of the model, S x S cells of a
window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from maskfreevis_ext.data.boxes import overlap_and_union
from maskfreevis_ext.inference.predictor import VideoPredictor
from maskfreevis_ext.ops.clip import FrameSizes
from maskfreevis_ext.pseudo.join import Predicted
from maskfreevis_ext.pseudo.windows import ObjectWindows

_FRAMES_TOGETHER = 16  # that pass the model as one clip
_LEAST_IOU = 0.1  # of boxes over a clip; below it a query has nothing to do with an object


class ModelEvidence:
    """Predicts the masks of given boxes with a trained model.

    A query stands for the object whose boxes it meets best over the clip, one to one; where the
    model has a multimask head, in each frame that one of its hypotheses counts whose box agrees
    most with the given box. Classes are not looked at.

    Args:
        predictor: The model, and how frames are prepared for it.
        name: Of its weights, to tell runs with different models apart.
    """

    def __init__(self, predictor: VideoPredictor, name: str = "model") -> None:
        self._predictor = predictor
        self.name = name

    @torch.no_grad()
    def __call__(
        self, frames: Sequence[np.ndarray], boxes: np.ndarray, windows: ObjectWindows
    ) -> Predicted:
        """What the model says.

        Args:
            frames: T frames, (H, W, 3) uint8, RGB.
            boxes: (N, T, 4), x0, y0, x1, y1 in pixels; empty where an object is absent.
            windows: Windows of the objects.

        Returns:
            Probabilities and agreement.
        """
        grid = windows.grid
        probabilities = torch.zeros(*boxes.shape[:2], grid, grid)
        agreement = torch.zeros(boxes.shape[:2])
        for start in range(0, len(frames), _FRAMES_TOGETHER):
            part = slice(start, start + _FRAMES_TOGETHER)
            logits, sizes = self._hypotheses(frames[part], boxes[:, part])
            for index, hypotheses in logits.items():  # (M, t, h, w)
                tight = map_boxes(hypotheses, sizes)
                ious = box_ious(tight, boxes[None, index, part])  # (M, t)
                best = ious.argmax(0)
                for t, choice in enumerate(best):
                    if ious[choice, t] > 0:
                        full = _to_frame(hypotheses[choice, t], sizes)
                        cells = windows.crop(full, index, start + t, grid)
                        probabilities[index, start + t] = torch.from_numpy(cells)
                        agreement[index, start + t] = float(ious[choice, t])
        return Predicted(probabilities, agreement)

    def _hypotheses(
        self, frames: Sequence[np.ndarray], boxes: np.ndarray
    ) -> tuple[dict[int, Tensor], FrameSizes]:
        """Mask logits (M, t, h, w) of the objects that a query meets, by object."""
        model: Any = self._predictor.model
        images = [self._predictor._prepare(frame) for frame in frames]
        height, width = frames[0].shape[:2]
        outputs, sizes = model.predict({"image": images, "height": height, "width": width})
        tight = map_boxes(outputs["pred_masks"], sizes)
        pairs = match_boxes(tight, boxes)
        if not pairs:
            return {}, sizes
        kept = torch.tensor([query for query, _ in pairs], device=outputs["pred_masks"].device)
        logits = outputs["pred_masks"][kept][:, None]
        for head in model.heads.values():
            if hasattr(head, "rated_masks"):
                logits = head.rated_masks(outputs, kept).logits
        logits = logits.float().cpu()
        return {index: logits[row] for row, (_, index) in enumerate(pairs)}, sizes


def match_boxes(predicted: np.ndarray, boxes: np.ndarray) -> list[tuple[int, int]]:
    """Match queries and objects one to one, so that the sum of their IoUs is largest.

    The IoU of boxes is that of a video: areas are summed over the frames of both.

    Args:
        predicted: (Q, T, 4), zeros where a mask is empty.
        boxes: (N, T, 4), zeros where an object is absent.

    Returns:
        Pairs of query and object with an IoU of at least 0.1.
    """
    overlap, union = overlap_and_union(predicted[:, None], boxes[None])
    ious = overlap.sum(-1) / np.maximum(union.sum(-1), 1e-9)
    pairs = zip(*linear_sum_assignment(ious, maximize=True), strict=True)
    return [(int(q), int(n)) for q, n in pairs if ious[q, n] >= _LEAST_IOU]


def map_boxes(logits: Tensor, sizes: FrameSizes) -> np.ndarray:
    """Tight boxes of masks in pixels of the video.

    Args:
        logits: (..., h, w) over the padded frame; above 0 is the object.
        sizes: Of the frames.

    Returns:
        (..., 4) float64, x0, y0, x1, y1; zeros for an empty mask.
    """
    masks = logits > 0
    height, width = logits.shape[-2:]
    sides = []
    for axis, length in ((-2, width), (-1, height)):
        is_used = masks.any(axis)  # columns, then rows
        places = torch.arange(length, device=logits.device)
        low = torch.where(is_used, places, length).amin(-1)
        high = torch.where(is_used, places + 1, 0).amax(-1)
        sides.append((low, high))
    (x0, x1), (y0, y1) = sides
    result = torch.stack([x0, y0, x1, y1], -1).double().cpu().numpy()
    result[(x1 <= x0).cpu().numpy()] = 0
    scale = [
        padded / cells * output / frame
        for padded, cells, output, frame in zip(
            sizes.padded_size, (height, width), sizes.output_size, sizes.frame_size, strict=True
        )
    ]
    limits = np.array([*sizes.output_size[::-1]] * 2, dtype=float)
    return np.minimum(result * np.array([scale[1], scale[0]] * 2), limits)


def box_ious(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of boxes (..., 4); 0 where one is empty."""
    overlap, union = overlap_and_union(one, other)
    return overlap / np.maximum(union, 1e-9)


def _to_frame(logits: Tensor, sizes: FrameSizes) -> np.ndarray:
    """Probabilities of a map (h, w) over the frame of the video, (H, W) float32."""
    values = logits.sigmoid().numpy()
    height, width = sizes.padded_size
    padded = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    frame = padded[: sizes.frame_size[0], : sizes.frame_size[1]]
    return cv2.resize(frame, sizes.output_size[::-1], interpolation=cv2.INTER_LINEAR)
