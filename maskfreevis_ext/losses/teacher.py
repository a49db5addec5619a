"""Loss term of uncertain masks: a teacher's masks inside boxes, weighted by its confidence.

Shape letters: K decoder outputs, N objects of all box-supervised clips, T frames, (h, w) map.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.box import MaskWeightTerm
from maskfreevis_ext.losses.scene import BoxObjects
from maskfreevis_ext.losses.term import LOSS_TERM_REGISTRY
from maskfreevis_ext.ops.boxes import box_profiles


def masked_bce_dice(logits: Tensor, targets: Tensor, region: Tensor) -> Tensor:
    """BCE, averaged over the cells of a region, plus Dice over the same cells.

    Dice is 1 - (2 <p, y> + 1) / (sum p + sum y + 1), as in Mask2Former.

    Args:
        logits: (..., h, w).
        targets: Probabilities, broadcastable to ``logits``, in [0, 1].
        region: Weight of each cell, broadcastable to ``logits``, in [0, 1].

    Returns:
        (...), >= 0; 0 where the region is empty.

    Example:
        >>> target = torch.tensor([[1.0, 0.0]])
        >>> masked_bce_dice(torch.zeros(1, 2), target, torch.ones(1, 2))  # ln 2 + 1 / 3
        tensor(1.0265)
    """
    # softplus(-x) y + softplus(x) (1 - y) = softplus(x) - x y
    bce = ((F.softplus(logits) - logits * targets) * region).sum((-2, -1))
    probs, labels = logits.sigmoid() * region, targets * region
    overlap = (probs * targets).sum((-2, -1))
    total = probs.sum((-2, -1)) + labels.sum((-2, -1))
    return bce / region.sum((-2, -1)).clamp(min=1) + 1 - (2 * overlap + 1) / (total + 1)


def grow_boxes(boxes: Tensor, share: float) -> Tensor:
    """Boxes whose sides are moved outwards by a share of their length; empty ones stay empty.

    Args:
        boxes: (..., 4), xyxy.
        share: >= 0.

    Example:
        >>> grow_boxes(torch.tensor([10.0, 10, 20, 30]), 0.1).tolist()
        [9.0, 8.0, 21.0, 32.0]
    """
    by = (boxes[..., 2:] - boxes[..., :2]) * share
    return torch.cat([boxes[..., :2] - by, boxes[..., 2:] + by], dim=-1)


@LOSS_TERM_REGISTRY.register()
class TeacherTerm(MaskWeightTerm):
    """``masked_bce_dice`` with the teacher's mask inside the grown box, times its confidence.

    The sum over objects and frames is divided by the number of frames of all objects that have
    boxes, with or without a teacher: it weighs as much as the teacher is certain.
    """

    name = "loss_teacher"
    row = "MODEL.MASKFREE.TEACHER.WEIGHT"
    is_optional = True

    def __init__(self, weight: float, grow: float = 0.1, least_confidence: float = 0.0) -> None:
        """Keep the settings.

        Args:
            weight: Weight of the term.
            grow: Share of its length by which each side of a box is moved outwards.
            least_confidence: Masks of a smaller confidence are not used.
        """
        super().__init__(weight)
        self.grow = grow
        self.least_confidence = least_confidence

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``."""
        node = cfg.MODEL.MASKFREE.TEACHER
        own = {"grow": node.GROW, "least_confidence": node.LEAST_CONFIDENCE}
        return {**super().from_config(cfg), **own}

    def by_object(self, mask_logits: Tensor, objects: BoxObjects, normalizers: Tensor) -> Tensor:
        """Loss of each object, summed over its frames, (K, N); 0 without a teacher."""
        teacher = objects.teacher
        if teacher is None:
            return mask_logits[..., :0].flatten(2).sum(-1)
        region = objects.once(f"teacher region {self.grow}", lambda: self._region(objects))
        confidence = teacher.confidence * (teacher.confidence >= self.least_confidence)
        per_frame = masked_bce_dice(mask_logits, teacher.maps, region)
        return (per_frame * confidence).sum(-1) / normalizers

    def _region(self, objects: BoxObjects) -> Tensor:
        """Cells that the grown box touches, without the padding, (N, T, h, w), 0 or 1."""
        grown = grow_boxes(objects.boxes, self.grow)
        rows, cols = box_profiles(grown, objects.map_size, objects.stride)
        is_inside = (rows > 0)[..., :, None] & (cols > 0)[..., None, :]
        return (is_inside & objects.in_frame).to(objects.boxes.dtype)
