"""Loss terms of objects supervised by masks, at sampled points, and the matching costs.

Cheng et al., "Masked-attention Mask Transformer", CVPR 2022 (arXiv:2112.01527), sec. 3.3.
Shape letters: K decoder outputs, Q queries, N objects, T frames, S masks, P points.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.scene import Scene
from maskfreevis_ext.losses.term import LOSS_TERM_REGISTRY, LossTerm
from maskfreevis_ext.ops.points import sample_points, uncertain_point_coords


def point_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of each mask, averaged over its points.

    Args:
        logits: (S, P).
        labels: (S, P), in [0, 1].

    Returns:
        (S,), >= 0.

    Example:
        >>> point_bce(torch.zeros(1, 4), torch.tensor([[0.0, 1, 0, 1]]))
        tensor([0.6931])
    """
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)


def point_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - (2 <p, y> + 1) / (sum p + sum y + 1) of each mask over its points.

    Args:
        logits: (S, P).
        labels: (S, P), in [0, 1].

    Returns:
        (S,), in [0, 1).

    Example:
        >>> point_dice(torch.zeros(1, 4), torch.tensor([[0.0, 1, 0, 1]]))
        tensor([0.4000])
    """
    probs = logits.sigmoid()
    overlap = (probs * labels).sum(-1)
    return 1 - (2 * overlap + 1) / (probs.sum(-1) + labels.sum(-1) + 1)


def pairwise_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """``point_bce`` of every prediction with every object.

    Args:
        logits: (..., Q, P).
        labels: (N, P), in [0, 1].

    Returns:
        (..., Q, N), >= 0.

    Example:
        >>> pairwise_bce(torch.zeros(2, 4), torch.ones(1, 4))
        tensor([[0.6931],
                [0.6931]])
    """
    # softplus(-x) y + softplus(x) (1 - y) = softplus(x) - x y
    return (F.softplus(logits).sum(-1, keepdim=True) - logits @ labels.T) / logits.shape[-1]


def pairwise_dice(probs: Tensor, labels: Tensor) -> Tensor:
    """``point_dice`` of every prediction with every object, from probabilities.

    Args:
        probs: (..., Q, P), in [0, 1].
        labels: (N, P), in [0, 1].

    Returns:
        (..., Q, N), in [0, 1).

    Example:
        >>> pairwise_dice(torch.ones(1, 4), torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0]]))
        tensor([[0.0000, 0.8000]])
    """
    overlap = probs @ labels.T
    total = probs.sum(-1, keepdim=True) + labels.sum(-1)
    return 1 - (2 * overlap + 1) / (total + 1)


class _PointTerm(LossTerm):
    """A mask loss at sampled points, most of them where the prediction is uncertain (PointRend)."""

    def __init__(
        self,
        weight: float,
        num_points: int = 112 * 112,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
    ) -> None:
        """Keep the weight and the settings of the point sampling.

        Args:
            weight: Weight of the term.
            num_points: P, points per mask and frame.
            oversample_ratio: PointRend's k.
            importance_sample_ratio: PointRend's beta.
        """
        super().__init__(weight)
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``."""
        node = cfg.MODEL.MASK_FORMER
        return {
            **super().from_config(cfg),
            "num_points": node.TRAIN_NUM_POINTS,
            "oversample_ratio": node.OVERSAMPLE_RATIO,
            "importance_sample_ratio": node.IMPORTANCE_SAMPLE_RATIO,
        }

    def counts(self, scene: Scene) -> Tensor:
        """Number of objects supervised by masks, (K, 1)."""
        is_matched = scene.is_matched(scene.with_masks)
        return is_matched.new_full((len(is_matched), 1), float(is_matched.shape[1]))

    def sums(self, scene: Scene, normalizers: Tensor) -> Tensor:
        """Sum over objects and frames divided by the normalizer, (K,)."""
        masks = scene.mask_masks
        if masks.logits.shape[1] == 0:
            return masks.logits.flatten(1).sum(1)
        # both mask terms use the same points: the first term of a step draws them
        samples = scene.once("mask points", lambda: self._sample(scene))
        values = []
        for (points, labels), is_matched in zip(samples, masks.is_matched, strict=True):
            weight = is_matched.repeat_interleave(masks.logits.shape[2])
            values.append((self.of_points(points, labels) * weight).sum())
        return torch.stack(values) / normalizers[:, 0]

    @staticmethod
    @abstractmethod
    def of_points(logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of each mask, (S,), from the logits and labels at its points, (S, P)."""

    def _sample(self, scene: Scene) -> list[tuple[Tensor, Tensor]]:
        """For each decoder output, logits and labels at the sampled points, (N * T, P) each."""
        masks = torch.cat([scene.targets[clip]["masks"] for clip in scene.with_masks])
        masks = masks.flatten(0, 1)[:, None].to(scene.mask_masks.logits.dtype)
        samples = []
        for of_layer in scene.mask_masks.logits:
            rows = of_layer.flatten(0, 1)[:, None]  # (N * T, 1, h, w)
            with torch.no_grad():
                coords = uncertain_point_coords(
                    rows, self.num_points, self.oversample_ratio, self.importance_sample_ratio
                )
                labels = sample_points(masks, coords)[:, 0]
            samples.append((sample_points(rows, coords)[:, 0], labels))
        return samples


@LOSS_TERM_REGISTRY.register()
class MaskTerm(_PointTerm):
    """Binary cross-entropy at the sampled points."""

    name = "loss_mask"
    row = "MODEL.MASK_FORMER.MASK_WEIGHT"
    of_points = staticmethod(point_bce)


@LOSS_TERM_REGISTRY.register()
class DiceTerm(_PointTerm):
    """Dice loss over the sampled points."""

    name = "loss_dice"
    row = "MODEL.MASK_FORMER.DICE_WEIGHT"
    of_points = staticmethod(point_dice)
