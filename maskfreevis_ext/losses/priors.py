"""Weak knowledge about masks of objects that have boxes: off unless their weights say otherwise.

Shape letters: K decoder outputs, N objects of all box-supervised clips, T frames, (h, w) map.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.box import MaskWeightTerm
from maskfreevis_ext.losses.scene import BoxObjects
from maskfreevis_ext.losses.term import LOSS_TERM_REGISTRY


def hardest_negatives(logits: Tensor, is_negative: Tensor, share: float) -> Tensor:
    """Cross-entropy to background, averaged over the cells of the map that look most like object.

    Args:
        logits: (..., h, w).
        is_negative: Cells that are background, broadcastable to ``logits``, bool.
        share: Share of the cells of the map that are averaged over, in (0, 1]; where there are
            fewer negative cells, the missing ones count as 0.

    Returns:
        (...), >= 0.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[99.0, 1.0, -99.0, 2.0]])
        >>> hardest_negatives(logits, torch.tensor([[False, True, True, True]]), 0.25)
        tensor(2.1269)
    """
    losses = (F.softplus(logits) * is_negative).flatten(-2)
    count = math.ceil(share * losses.shape[-1])
    return losses.topk(count, dim=-1).values.mean(-1)


def outside_all_boxes(maps: Tensor, clips: Tensor, num_clips: int) -> Tensor:
    """Cells that no box of the object's clip touches, (N, T, h, w), bool.

    Args:
        maps: Filled boxes, (N, T, h, w), values in [0, 1].
        clips: Index of each object's clip, (N,), int64, in [0, ``num_clips``).
        num_clips: Number of clips.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[1.0, 0, 0], [0, 0.5, 0], [0, 0, 1]]).view(3, 1, 1, 3)
        >>> outside_all_boxes(maps, torch.tensor([0, 0, 1]), 2).int().flatten(1).tolist()
        [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    """
    boxes = maps.new_zeros(num_clips, *maps.shape[1:])
    boxes.index_add_(0, clips, (maps > 0).to(maps.dtype))
    return boxes[clips] == 0


@LOSS_TERM_REGISTRY.register()
class OutsideTerm(MaskWeightTerm):
    """Pixels outside all boxes of a frame are background: ``hardest_negatives`` of each mask.

    Only in clips supervised by boxes, in which all objects have boxes: crowds have none here, and
    their pixels count as background.
    """

    name = "loss_outside"
    row = "MODEL.MASKFREE.OUTSIDE.WEIGHT"
    is_optional = True

    def __init__(self, weight: float, share: float = 0.1) -> None:
        """Keep the weight, and the share of the cells that are looked at."""
        super().__init__(weight)
        self.share = share

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``."""
        return {**super().from_config(cfg), "share": cfg.MODEL.MASKFREE.OUTSIDE.SHARE}

    def by_object(self, mask_logits: Tensor, objects: BoxObjects, normalizers: Tensor) -> Tensor:
        """Loss of each object, summed over its frames, (K, N)."""
        negative = objects.once(self.name, lambda: self._negative(objects))
        return hardest_negatives(mask_logits, negative, self.share).sum(-1) / normalizers

    @staticmethod
    def _negative(objects: BoxObjects) -> Tensor:
        num_clips = objects.affinities.matches.shape[0]
        return outside_all_boxes(objects.maps, objects.clips, num_clips) & objects.in_frame


@LOSS_TERM_REGISTRY.register()
class FillTerm(MaskWeightTerm):
    """The share of the box that a mask fills lies in a range; nothing where the object is absent.

    The share is the mean probability in the box. What it lacks or exceeds is the loss.
    """

    name = "loss_fill"
    row = "MODEL.MASKFREE.FILL.WEIGHT"
    is_optional = True

    def __init__(self, weight: float, least: float = 0.4, largest: float = 0.9) -> None:
        """Keep the weight and the range of the share, 0 <= least <= largest <= 1."""
        super().__init__(weight)
        self.least = least
        self.largest = largest

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``."""
        least, largest = cfg.MODEL.MASKFREE.FILL.RANGE
        return {**super().from_config(cfg), "least": least, "largest": largest}

    def by_object(self, mask_logits: Tensor, objects: BoxObjects, normalizers: Tensor) -> Tensor:
        """Loss of each object, summed over its frames, (K, N)."""
        area = objects.maps.sum((-2, -1))  # (N, T)
        share = (mask_logits.sigmoid() * objects.maps).sum((-2, -1)) / area.clamp(min=0.5)
        beyond = F.relu(self.least - share) + F.relu(share - self.largest)
        return (beyond * (area > 0)).sum(-1) / normalizers
