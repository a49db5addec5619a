"""Loss terms of objects supervised by boxes: projection, spatial and temporal pairwise loss.

Ke et al., "Mask-Free Video Instance Segmentation", CVPR 2023 (arXiv:2303.15904). The projection
loss is eq. 1-2 of Tian et al., "BoxInst", CVPR 2021 (arXiv:2012.02310), applied to each frame.
Shape letters: K decoder outputs, N objects of all box-supervised clips, T frames, E frame pairs,
(h, w) map.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.pairwise import Pairs, spatial_pairs, temporal_pairs
from maskfreevis_ext.losses.scene import BoxObjects, Scene
from maskfreevis_ext.losses.term import LOSS_TERM_REGISTRY, LossTerm
from maskfreevis_ext.ops.boxes import mask_projections

_EPS = 1e-5  # added to the denominator of Dice, as in the reference


def dice_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - 2 <x, y> / (<x, x> + <y, y> + 1e-5) over the last axis.

    Args:
        prediction: Probabilities, (..., n).
        target: Values in [0, 1], broadcastable to ``prediction``.

    Returns:
        (...), in [0, 1].

    Example:
        >>> dice_distance(torch.tensor([1.0, 1, 0, 0]), torch.tensor([1.0, 1, 1, 1]))
        tensor(0.3333)
    """
    overlap = (prediction * target).sum(-1)
    size = prediction.square().sum(-1) + target.square().sum(-1)
    return 1 - 2 * overlap / (size + _EPS)


def projection_loss(
    row_logits: Tensor,
    col_logits: Tensor,
    row_target: Tensor,
    col_target: Tensor,
    empty_frame_weight: float = 0.0,
) -> Tensor:
    """Dice distance between the projections of a mask and of its box, for every object and frame.

    Where the box is empty, because the object is absent from the frame, the Dice distance is 1 on
    both axes for any mask and has no gradient. With ``empty_frame_weight`` > 0 the loss in such a
    frame is that weight times the mean probability of both projections instead: it is 0 for an
    empty mask, and every cell that is switched off lowers it.

    Args:
        row_logits: Largest logit of each row, (..., N, T, h).
        col_logits: Largest logit of each column, (..., N, T, w).
        row_target: Row profile of the box, (N, T, h), values in [0, 1].
        col_target: Column profile of the box, (N, T, w).
        empty_frame_weight: Weight of the penalty in frames without the object; 0: the constant 2.

    Returns:
        (..., N, T), sum of both axes, in [0, 2].

    Example:
        >>> sure = torch.tensor([[[-99.0, 99.0, -99.0]]])  # one object, one frame, middle row
        >>> target = torch.tensor([[[0.0, 1.0, 0.0]]])
        >>> projection_loss(sure, sure, target, target).abs().item() < 1e-4
        True
    """
    rows, cols = row_logits.sigmoid(), col_logits.sigmoid()
    loss = dice_distance(rows, row_target) + dice_distance(cols, col_target)
    if empty_frame_weight == 0:
        return loss
    is_absent = (row_target.amax(-1) == 0) | (col_target.amax(-1) == 0)
    return torch.where(is_absent, empty_frame_weight * (rows.mean(-1) + cols.mean(-1)), loss)


def warmup_factor(iteration: Tensor, warmup_iters: int) -> Tensor | float:
    """Warm-up factor of a loss term: it rises linearly from 0 to 1 in ``warmup_iters`` steps.

    Args:
        iteration: Training steps done, this one included.
        warmup_iters: Steps of the linear rise; 0 or less: the factor is 1.

    Example:
        >>> warmup_factor(torch.tensor([5.0]), 10)
        tensor([0.5000])
    """
    return 1.0 if warmup_iters <= 0 else (iteration / warmup_iters).clamp(max=1.0)


class BoxTerm(LossTerm):
    """Base class of the terms for objects supervised by boxes: a sum over the matched objects.

    ``by_object`` gives the loss of each object separately; by it the multimask head chooses the
    best of several mask hypotheses.
    """

    def sums(self, scene: Scene, normalizers: Tensor) -> Tensor:
        """Sum over the matched objects divided by the normalizers, (K,)."""
        masks, objects = scene.box_masks, scene.boxes
        if objects is None:
            return masks.logits.flatten(1).sum(1)
        value = self.of_objects(masks.logits, masks.is_matched, objects, normalizers)
        return value * self.factor(objects, scene.iteration)

    def counts(self, scene: Scene) -> Tensor:
        """Counts over the matched objects, (K, n)."""
        is_matched = scene.is_matched(scene.with_boxes)
        if scene.boxes is None:
            return is_matched.new_zeros(len(is_matched), self.num_counts)
        return self.counts_of_objects(is_matched, scene.boxes)

    def costs(
        self, mask_logits: Tensor, objects: BoxObjects, iteration: Tensor, normalizers: Tensor
    ) -> Tensor:
        """Weighted loss of every mask of every object, to compare hypotheses; without a gradient.

        Args:
            mask_logits: (K, N, T, h, w); here K counts decoder outputs times hypotheses.
            objects: The N objects.
            iteration: Training steps done, (1,).
            normalizers: (K, n).

        Returns:
            (K, N).
        """
        with torch.no_grad():
            value = self.by_object(mask_logits, objects, normalizers)
        return value * (self.weight * self.factor(objects, iteration))

    def factor(self, objects: BoxObjects, iteration: Tensor) -> Tensor | float:
        """Factor on the normalized sum, such as a warm-up; 1 in the base class."""
        return 1.0

    def counts_of_objects(self, is_matched: Tensor, objects: BoxObjects) -> Tensor:
        """Counts of the objects with ``is_matched`` (K, N); by default their frames, (K, 1)."""
        return is_matched.sum(-1, keepdim=True) * objects.boxes.shape[1]

    def of_objects(
        self, mask_logits: Tensor, is_matched: Tensor, objects: BoxObjects, normalizers: Tensor
    ) -> Tensor:
        """Sum of ``by_object`` over the matched objects, (K,)."""
        return (self.by_object(mask_logits, objects, normalizers) * is_matched).sum(-1)

    @abstractmethod
    def by_object(self, mask_logits: Tensor, objects: BoxObjects, normalizers: Tensor) -> Tensor:
        """Loss of each object, divided by the normalizers, (K, N).

        Args:
            mask_logits: (K, N, T, h, w).
            objects: The N objects.
            normalizers: (K, n).
        """


class MaskWeightTerm(BoxTerm):
    """A term whose weight is multiplied by ``MASK_WEIGHT``, as in MaskFreeVIS."""

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """The weight: the value of the key ``row`` times MODEL.MASK_FORMER.MASK_WEIGHT."""
        weight = super().from_config(cfg)["weight"]
        return {"weight": cfg.MODEL.MASK_FORMER.MASK_WEIGHT * weight}


@LOSS_TERM_REGISTRY.register()
class ProjectionTerm(MaskWeightTerm):
    """``projection_loss``, averaged over objects and frames."""

    name = "loss_mask_proj"
    row = "MODEL.MASKFREE.PROJECTION.WEIGHT"

    def __init__(self, weight: float, empty_frame_weight: float = 1.0) -> None:
        """Keep the weights; ``projection_loss`` explains ``empty_frame_weight``."""
        super().__init__(weight)
        self.empty_frame_weight = empty_frame_weight

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``."""
        empty_frame_weight = cfg.MODEL.MASKFREE.PROJECTION.EMPTY_FRAME_WEIGHT
        return {**super().from_config(cfg), "empty_frame_weight": empty_frame_weight}

    def by_object(self, mask_logits: Tensor, objects: BoxObjects, normalizers: Tensor) -> Tensor:
        """Loss of each object, summed over its frames, (K, N)."""
        per_frame = projection_loss(
            *mask_projections(mask_logits), *objects.profiles, self.empty_frame_weight
        )
        return per_frame.sum(-1) / normalizers


class _PairTerm(MaskWeightTerm):
    """A pairwise term; its pairs of cells are collected once per step, when they are counted."""

    def counts_of_objects(self, is_matched: Tensor, objects: BoxObjects) -> Tensor:
        """Weight of the pairs of the matched objects, (K, n)."""
        return self._pairs(objects).counts(is_matched)

    def of_objects(
        self, mask_logits: Tensor, is_matched: Tensor, objects: BoxObjects, normalizers: Tensor
    ) -> Tensor:
        """Sum over the pairs of all matched objects, (K,)."""
        return self._pairs(objects).sums(mask_logits, is_matched, normalizers)

    def by_object(self, mask_logits: Tensor, objects: BoxObjects, normalizers: Tensor) -> Tensor:
        """Loss of each object, summed over its pairs, (K, N)."""
        return self._pairs(objects).by_object(mask_logits, normalizers)

    @abstractmethod
    def _pairs(self, objects: BoxObjects) -> Pairs:
        """The pairs of cells of the objects; the same ones at every call in a step."""


@LOSS_TERM_REGISTRY.register()
class SpatialPairTerm(_PairTerm):
    """Neighbouring cells of similar colour have the same label (BoxInst eq. 6-7)."""

    name = "loss_bound"
    row = "MODEL.MASKFREE.PAIRWISE.WEIGHT"

    def __init__(self, weight: float, warmup_iters: int = 0) -> None:
        """Keep the weight and the length of its warm-up, in steps."""
        super().__init__(weight)
        self.warmup_iters = warmup_iters

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``."""
        warmup_iters = cfg.MODEL.MASKFREE.PAIRWISE.WARMUP_ITERS
        return {**super().from_config(cfg), "warmup_iters": warmup_iters}

    def factor(self, objects: BoxObjects, iteration: Tensor) -> Tensor | float:
        """Warm-up factor at ``iteration``."""
        return warmup_factor(iteration, self.warmup_iters)

    def _pairs(self, objects: BoxObjects) -> Pairs:
        return objects.once(self.name, lambda: spatial_pairs(objects))


@LOSS_TERM_REGISTRY.register()
class TemporalPairTerm(_PairTerm):
    """TK-Loss: a cell and its best matches in another frame have the same label (eq. 5).

    The sum of each frame pair is divided by the number of matches of that pair.
    """

    name = "loss_bound_neighbor"
    row = "MODEL.MASKFREE.TEMPORAL.WEIGHT"
    #: Frame pairs whose number of matches all processes share. It is fixed, so that processes with
    #: clips of different lengths reduce the same number of counts; any further pair of a very long
    #: clip is divided by the matches of its own process.
    num_counts = 128

    def __init__(
        self, weight: float, scale: float = 0.1, norm_pairs: int = 3, warmup_iters: int = 200
    ) -> None:
        """Keep the weight and its factors.

        Args:
            weight: Weight of the term.
            scale: lambda_temp of the paper.
            norm_pairs: Number of frame pairs for which the weight was chosen: the sum over E pairs
                is multiplied by ``norm_pairs`` / E. 0: the plain sum.
            warmup_iters: Steps of the linear warm-up.
        """
        super().__init__(weight)
        self.scale = scale
        self.norm_pairs = norm_pairs
        self.warmup_iters = warmup_iters

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of ``__init__``."""
        node = cfg.MODEL.MASKFREE.TEMPORAL
        return {
            **super().from_config(cfg),
            "scale": node.SCALE,
            "norm_pairs": node.NORM_PAIRS,
            "warmup_iters": node.WARMUP_ITERS,
        }

    def factor(self, objects: BoxObjects, iteration: Tensor) -> Tensor | float:
        """Scale times warm-up times ``norm_pairs`` / E."""
        factor = self.scale * warmup_factor(iteration, self.warmup_iters)
        num_pairs = len(objects.affinities.pairs)
        if self.norm_pairs and num_pairs:
            factor = factor * (self.norm_pairs / num_pairs)
        return factor

    def counts_of_objects(self, is_matched: Tensor, objects: BoxObjects) -> Tensor:
        """Number of matches of each frame pair, (K, n); 0 for pairs that the clip does not have."""
        counts = super().counts_of_objects(is_matched, objects)[:, : self.num_counts]
        return F.pad(counts, (0, self.num_counts - counts.shape[1]))

    def of_objects(
        self, mask_logits: Tensor, is_matched: Tensor, objects: BoxObjects, normalizers: Tensor
    ) -> Tensor:
        """Sum over the matches of all matched objects, (K,)."""
        normalizers = self._of_pairs(normalizers, is_matched, objects)
        return super().of_objects(mask_logits, is_matched, objects, normalizers)

    def by_object(self, mask_logits: Tensor, objects: BoxObjects, normalizers: Tensor) -> Tensor:
        """Loss of each object, summed over its matches, (K, N)."""
        is_matched = mask_logits.new_ones(mask_logits.shape[:2])
        normalizers = self._of_pairs(normalizers, is_matched, objects)
        return super().by_object(mask_logits, objects, normalizers)

    def _of_pairs(self, normalizers: Tensor, is_matched: Tensor, objects: BoxObjects) -> Tensor:
        """Normalizers of the clip's E frame pairs, (K, E), from the n shared ones, (K, n)."""
        num_pairs = len(objects.affinities.pairs)
        if num_pairs <= self.num_counts:
            return normalizers[:, :num_pairs]
        own = self.floor(self._pairs(objects).counts(is_matched)[:, self.num_counts :])
        return torch.cat([normalizers, own], dim=1)

    def _pairs(self, objects: BoxObjects) -> Pairs:
        return objects.once(self.name, lambda: temporal_pairs(objects))
