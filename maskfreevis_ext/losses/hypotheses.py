"""The mask hypotheses of the matched objects, and the choice of the one that is trained.

Shape letters: K decoder outputs, M extra hypotheses, N objects of B clips in one list, D channels
of a query, C channels of a mask embedding, T frames, (h, w) map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.box import BoxTerm
from maskfreevis_ext.losses.matched_masks import (
    MatchedMasks,
    ProductGradient,
    columns_of_clips,
)
from maskfreevis_ext.losses.scene import Scene
from maskfreevis_ext.losses.term import LossTerm
from maskfreevis_ext.ops.boxes import box_profiles, boxes_from_projections, mask_projections
from maskfreevis_ext.ops.reduce import send


@dataclass(frozen=True)
class Hypotheses:
    """All mask hypotheses of the matched queries, and their predicted ratings.

    Attributes:
        logits: Mask logits, (K, M + 1, N, T, h, w), without a gradient.
        embeddings: Mask embeddings, (K, M + 1, N, C).
        mask_features: Mask features of all clips, (B, C, T, h, w).
        ious: Predicted IoUs, (K, M + 1, N, T).
        scores: Logits of "the object is in the frame", (K, N, T); None without object scores.
        is_matched: Whether the object has a query, (K, N), float.
        clips: Index of each object's clip, (N,), int64, on the CPU, ascending.
        anchor: Zeros with a gradient path, (K,).
        all_matched: Whether every object has a query at every output; known on the CPU, so that
            nobody waits for the GPU.
    """

    logits: Tensor
    embeddings: Tensor
    mask_features: Tensor
    ious: Tensor
    scores: Tensor | None
    is_matched: Tensor
    clips: Tensor
    anchor: Tensor
    all_matched: bool

    @property
    def sizes(self) -> list[int]:
        """Number of objects of each of the B clips."""
        return torch.bincount(self.clips, minlength=len(self.mask_features)).tolist()

    def of_clips(self, clips: list[int]) -> Hypotheses:
        """The hypotheses of the objects of the given clips."""
        columns = columns_of_clips(self.clips, clips)
        if len(columns) == len(self.clips):
            return self
        there = send(columns, self.logits.device)
        return replace(
            self,
            logits=self.logits.index_select(2, there),
            embeddings=self.embeddings.index_select(2, there),
            ious=self.ious.index_select(2, there),
            scores=None if self.scores is None else self.scores.index_select(1, there),
            is_matched=self.is_matched.index_select(1, there),
            clips=self.clips[columns],
        )

    def chosen(self, best: Tensor) -> MatchedMasks:
        """Masks of the hypotheses ``best`` (K, N), in [0, M], with a gradient."""
        if best.shape[1] == 0:  # a product would make a gradient as large as the features
            logits = self.logits[:, 0] + self.anchor.view(-1, 1, 1, 1, 1)
        else:
            index = best[:, None, :, None]
            embeddings = self.embeddings.take_along_dim(index, 1)[:, 0]
            logits = self.logits.take_along_dim(index[..., None, None], 1)[:, 0]
            logits = ProductGradient.apply(embeddings, self.mask_features, logits, self.sizes)
        return MatchedMasks(logits, self.is_matched, self.clips, self.anchor)

    def all_masks(self) -> Tensor:
        """All mask logits with a gradient, (K, N, M + 1, T, h, w)."""
        num_masks = self.logits.shape[1]
        embeddings = self.embeddings.transpose(1, 2).flatten(1, 2)
        logits = self.logits.transpose(1, 2).flatten(1, 2)
        sizes = [size * num_masks for size in self.sizes]
        logits = ProductGradient.apply(embeddings, self.mask_features, logits, sizes)
        return logits.unflatten(1, (-1, num_masks))


@torch.no_grad()
def tight_box_ious(mask_logits: Tensor, boxes: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """IoU of the tight boxes of masks with given boxes, both in whole cells.

    Args:
        mask_logits: (..., N, T, h, w).
        boxes: (N, T, 4), xyxy pixels, zeros where the object is absent.
        stride: Pixels per cell.

    Returns:
        IoUs (..., N, T), in [0, 1], 0 where either box is empty; and whether the given box covers
        a cell, (N, T), bool.

    Example:
        >>> logits = torch.tensor([1.0, 1, -1, -1]).view(1, 1, 1, 4)  # left half of a map 1 x 4
        >>> boxes = torch.tensor([[[0.0, 0, 12, 4]]])  # three of its four cells
        >>> ious, has_cells = tight_box_ious(logits, boxes, stride=4)
        >>> round(ious.item(), 3), has_cells.item()
        (0.667, True)
    """
    rows, cols = box_profiles(boxes, (mask_logits.shape[-2], mask_logits.shape[-1]), stride)
    given = boxes_from_projections(rows - 0.25, cols - 0.25)  # cells that are half covered or more
    found = boxes_from_projections(*mask_projections(mask_logits))
    low = torch.maximum(given[..., :2], found[..., :2])
    high = torch.minimum(given[..., 2:], found[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (given, found)]
    union = areas[0] + areas[1] - overlap
    return overlap.to(mask_logits.dtype) / union.clamp(min=1), areas[0] > 0


def shrink_masks(masks: Tensor, stride: int) -> Tensor:
    """Shrink masks to the resolution of the logits, so that no visible object becomes empty.

    Args:
        masks: (N, T, H, W), bool.
        stride: Pixels per cell.

    Returns:
        (N, T, H / stride, W / stride), bool: the cells of which the mask covers half or more, or,
        if there are none, all cells that it touches.

    Example:
        >>> masks = torch.zeros(1, 1, 4, 8, dtype=torch.bool)
        >>> masks[..., :3] = True
        >>> shrink_masks(masks, stride=4).int().tolist()
        [[[[1, 0]]]]
    """
    cover = F.avg_pool2d(masks.to(torch.float32), stride)
    half = cover >= 0.5
    return half | ((cover > 0) & ~half.any(-1, keepdim=True).any(-2, keepdim=True))


#: Key under which the multimask head stores the ``Hypotheses`` of a batch in the scene.
HYPOTHESES = "hypotheses"
#: Key of the hypothesis that is trained, for each object supervised by boxes, (K, N).
BEST = "best hypothesis"


@torch.no_grad()
def best_by_boxes(
    hypotheses: Hypotheses,
    scene: Scene,
    terms: Sequence[LossTerm],
    normalizers: dict[str, Tensor],
) -> Tensor:
    """For each object supervised by boxes, the hypothesis with the lowest box loss, (K, N).

    Args:
        hypotheses: Hypotheses of the N objects supervised by boxes.
        scene: The batch.
        terms: All loss terms; the costs of the ``BoxTerm``s among them are summed.
        normalizers: Normalizers of the terms by name.
    """
    logits = hypotheses.logits  # (K, M + 1, N, T, h, w)
    flat = logits.flatten(0, 1)
    costs = logits.new_zeros(logits.shape[:3])
    if scene.boxes is None:
        return costs[:, 0].long()
    for term in terms:
        if isinstance(term, BoxTerm):
            normalizer = normalizers[term.name].repeat_interleave(logits.shape[1], 0)
            of_term = term.costs(flat, scene.boxes, scene.iteration, normalizer)
            costs += of_term.view_as(costs)
    return costs.argmin(1)
