"""Losses of several mask hypotheses per object: the best is trained, all are rated.

Shape letters: K decoder outputs, M extra hypotheses, N objects of B clips in one list, D channels
of a query, C of a mask embedding, T frames, (h, w) map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.multimask import (
    IOUS_KEY,
    MASKS_KEY,
    SCORES_KEY,
    MultiStepMultiMasksAndIous,
    sigmoid_focal,
)
from maskfreevis_ext.ops.boxes import box_profiles, boxes_from_projections, mask_projections
from maskfreevis_ext.ops.dtypes import at_least_float32
from maskfreevis_ext.ops.hypotheses import ABSENT_LOGIT, pool_features
from maskfreevis_ext.ops.reduce import send

from .matched_masks import (
    MatchedMasks,
    ProductGradient,
    columns_of_clips,
    of_queries,
    zero_anchor,
)
from .multimask_head import MultimaskHead


@dataclass(frozen=True)
class Hypotheses:
    """All masks of the queries that were matched, and their ratings.

    Attributes:
        logits: (K, M + 1, N, T, h, w), without a graph.
        embeddings: Mask embeddings, (K, M + 1, N, C).
        mask_features: (B, C, T, h, w), of all clips.
        ious: Predicted IoUs, (K, M + 1, N, T).
        scores: Logits of "the object is in the frame", (K, N, T); None where there is no such head.
        is_matched: Whether the object has a query, (K, N), float.
        clips: Clip of each object, (N,), int64, on the CPU, ascending.
        anchor: Zeros with a gradient path, (K,).
        all_matched: Whether every object has a query at every output, known without asking the
            device.
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
        """Objects of each of the B clips."""
        return torch.bincount(self.clips, minlength=len(self.mask_features)).tolist()

    def of_clips(self, clips: list[int]) -> Hypotheses:
        """Those of some clips."""
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
        """One mask of each object, with a graph; ``best`` (K, N), in [0, M]."""
        if best.shape[1] == 0:  # no product, whose gradient would be as large as the features
            logits = self.logits[:, 0] + self.anchor.view(-1, 1, 1, 1, 1)
        else:
            index = best[:, None, :, None]
            embeddings = self.embeddings.take_along_dim(index, 1)[:, 0]
            logits = self.logits.take_along_dim(index[..., None, None], 1)[:, 0]
            logits = ProductGradient.apply(embeddings, self.mask_features, logits, self.sizes)
        return MatchedMasks(logits, self.is_matched, self.clips, self.anchor)

    def all_masks(self) -> Tensor:
        """All masks with a graph, (K, N, M + 1, T, h, w)."""
        num_masks = self.logits.shape[1]
        embeddings = self.embeddings.transpose(1, 2).flatten(1, 2)
        logits = self.logits.transpose(1, 2).flatten(1, 2)
        sizes = [size * num_masks for size in self.sizes]
        logits = ProductGradient.apply(embeddings, self.mask_features, logits, sizes)
        return logits.unflatten(1, (-1, num_masks))


def make_hypotheses(
    head: MultimaskHead,
    layers: list[dict[str, Tensor]],
    queries: Tensor,
    clips: Tensor,
    all_matched: bool,
) -> Hypotheses:
    """Run the multimask head on the queries that were matched.

    Args:
        head: The head.
        layers: K decoder outputs with ``pred_logits``, ``pred_masks``, ``mask_embed`` and
            ``queries``; the first one also with ``mask_features``.
        queries: (K, N), -1 where an object has no query.
        clips: Clip of each object, (N,), int64, on the CPU, ascending.
        all_matched: Whether no entry of ``queries`` is -1.
    """
    names = "queries", "mask_embed", "pred_masks"
    tokens, ordinary, masks = (
        at_least_float32(of_queries(layers, name, queries, clips)) for name in names
    )
    mask_features = at_least_float32(layers[0]["mask_features"])
    embeddings = head.embed(tokens, ordinary).transpose(1, 2)  # (K, M + 1, N, C)
    logits = masks.new_empty(*embeddings.shape[:3], *masks.shape[2:])
    pooled = masks.new_empty(*embeddings.shape[:3], masks.shape[2], mask_features.shape[1])
    with torch.no_grad():
        logits[:, 0] = masks
        for clip in clips.unique().tolist():
            rows = send((clips == clip).nonzero()[:, 0], logits.device)
            features = mask_features[clip]
            extra = embeddings[:, 1:, rows] @ features.flatten(1)
            logits[:, 1:, rows] = extra.unflatten(-1, features.shape[1:])
            pooled[:, :, rows] = pool_features(logits[:, :, rows], features)
    ious, scores = head.rate(tokens, pooled.transpose(1, 2))
    anchor = zero_anchor(layers) + 0 * (embeddings.sum() + ious.sum())
    if scores is not None:
        anchor = anchor + 0 * scores.sum()
    if len(clips) == 0:  # else the masks give the features their gradient
        anchor = anchor + mask_features[..., :0].sum()
    is_matched = (queries >= 0).to(logits.dtype)
    ious = ious.transpose(1, 2)
    return Hypotheses(
        logits, embeddings, mask_features, ious, scores, is_matched, clips, anchor, all_matched
    )


@torch.no_grad()
def tight_box_ious(mask_logits: Tensor, boxes: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """IoU of the tight boxes of masks with given boxes, both in whole cells.

    Args:
        mask_logits: (..., N, T, h, w).
        boxes: (N, T, 4), xyxy pixels, zeros where the object is absent.
        stride: Pixels per cell.

    Returns:
        (..., N, T), in [0, 1]; 0 where either is empty. And whether the given box has a cell,
        (N, T), bool.
    """
    rows, cols = box_profiles(boxes, mask_logits.shape[-2:], stride)
    given = boxes_from_projections(rows - 0.25, cols - 0.25)  # cells that are half covered or more
    found = boxes_from_projections(*mask_projections(mask_logits))
    low = torch.maximum(given[..., :2], found[..., :2])
    high = torch.minimum(given[..., 2:], found[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (given, found)]
    union = areas[0] + areas[1] - overlap
    return overlap.to(mask_logits.dtype) / union.clamp(min=1), areas[0] > 0


def shrink_masks(masks: Tensor, stride: int) -> Tensor:
    """Masks at the resolution of the logits; an object never vanishes.

    Args:
        masks: (N, T, H, W), bool.
        stride: Pixels per cell.

    Returns:
        (N, T, H / stride, W / stride), bool: cells that are half covered, or, where there are none,
        those that are touched.
    """
    cover = F.avg_pool2d(masks.to(torch.float32), stride)
    half = cover >= 0.5
    return half | ((cover > 0) & ~half.any(-1, keepdim=True).any(-2, keepdim=True))


@dataclass(frozen=True)
class MultimaskLosses:
    """The terms that ``MODEL.MULTIMASK`` adds; see config.py for the keys."""

    weights: dict[str, float]
    focal_alpha: float
    focal_gamma: float
    supervise_all_iou: bool
    iou_l1: bool
    obj_gamma: float
    obj_alpha: float
    iou_from_boxes: bool
    overwrite_absent: bool
    normalize: bool

    @classmethod
    def from_config(cls, cfg: Any) -> MultimaskLosses:
        """Read ``MODEL.MULTIMASK``."""
        node = cfg.MODEL.MULTIMASK
        loss = node.LOSS
        return cls(
            weights={
                "loss_mask": loss.MASK,
                "loss_dice": loss.DICE,
                "loss_iou": loss.IOU,
                "loss_class": loss.CLASS,
            },
            focal_alpha=loss.FOCAL_ALPHA,
            focal_gamma=loss.FOCAL_GAMMA,
            supervise_all_iou=loss.SUPERVISE_ALL_IOU,
            iou_l1=loss.IOU_L1,
            obj_gamma=loss.OBJ_GAMMA,
            obj_alpha=loss.OBJ_ALPHA,
            iou_from_boxes=node.IOU_TARGET == "box",
            overwrite_absent=node.NO_OBJ_OVERWRITE_IN_TRAIN,
            normalize=loss.NORM_STEPS_FRAMES,
        )

    def scale(self, num_steps: int, num_frames: int) -> float:
        """What sums over frames are multiplied by."""
        return 1.0 / (num_steps * num_frames) if self.normalize else 1.0

    def of_boxes(
        self,
        hypotheses: Hypotheses,
        best: Tensor,
        boxes: Tensor,
        is_present: Tensor,
        stride: int,
        count: Tensor,
    ) -> dict[str, Tensor]:
        """IoU and presence of objects with boxes.

        Args:
            hypotheses: Those of the objects.
            best: The hypothesis that is trained, (K, N).
            boxes: (N, T, 4).
            is_present: (N, T), bool.
            stride: Pixels per cell.
            count: Objects per process, over all.

        Returns:
            ``loss_iou`` and ``loss_class``, (K,) each, not weighted.
        """
        ious, scores = hypotheses.ious, hypotheses.scores
        weight = hypotheses.is_matched[..., None] / count  # (K, N, 1)
        weight = weight * self.scale(len(best), boxes.shape[1])
        terms = {"loss_iou": hypotheses.anchor, "loss_class": hypotheses.anchor}
        if self.iou_from_boxes:
            target, has_cells = tight_box_ious(hypotheses.logits, boxes, stride)
            error = ious - target
            error = error.abs() if self.iou_l1 else error.square()
            if self.supervise_all_iou:
                error = error.mean(1)
            else:
                error = error.take_along_dim(best[:, None, :, None], 1)[:, 0]
            error = error * (is_present & has_cells)
            terms["loss_iou"] = (error * weight).flatten(1).sum(1)
        if scores is not None:
            target = is_present.to(scores.dtype).expand_as(scores)
            bce = sigmoid_focal(
                scores.reshape(-1, 1), target.reshape(-1, 1), self.obj_alpha, self.obj_gamma
            )
            terms["loss_class"] = (bce.view_as(scores) * weight).flatten(1).sum(1)
        return terms

    def of_masks(self, hypotheses: Hypotheses, targets: Tensor, count: Tensor) -> dict[str, Tensor]:
        """SAM 2's terms of objects with masks, one decoder output after the other.

        Args:
            hypotheses: Those of the objects.
            targets: Their masks at the resolution of the logits, (N, T, h, w), bool.
            count: Objects per process, over all.

        Returns:
            ``loss_mask``, ``loss_dice``, ``loss_iou``, ``loss_class``, (K,) each, not weighted.
        """
        names = list(self.weights)
        if len(targets) == 0:
            return dict.fromkeys(names, hypotheses.anchor)
        loss = MultiStepMultiMasksAndIous(
            self.weights,
            focal_alpha=self.focal_alpha,
            focal_gamma=self.focal_gamma,
            supervise_all_iou=self.supervise_all_iou,
            iou_use_l1_loss=self.iou_l1,
            pred_obj_scores=hypotheses.scores is not None,
            focal_gamma_obj_score=self.obj_gamma,
            focal_alpha_obj_score=self.obj_alpha,
        )
        masks, ious = hypotheses.all_masks(), hypotheses.ious.transpose(1, 2)
        per_layer = []
        for k, is_matched in enumerate(hypotheses.is_matched):
            scores = None if hypotheses.scores is None else hypotheses.scores[k]
            found = masks[k], ious[k], scores, targets
            if not hypotheses.all_matched:
                keep = is_matched.nonzero()[:, 0]
                found = tuple(None if x is None else x[keep] for x in found)
            outputs = self._as_steps(*found[:3])
            terms = loss(outputs, found[3].transpose(0, 1), num_objects=count)
            per_layer.append(torch.stack([terms[name] for name in names]))
        scale = self.scale(len(masks), targets.shape[1])
        values = torch.stack(per_layer, dim=1) * scale + hypotheses.anchor
        return dict(zip(names, values, strict=True))

    def _as_steps(
        self, masks: Tensor, ious: Tensor, scores: Tensor | None
    ) -> list[dict[str, list[Tensor]]]:
        """Outputs of one layer as SAM 2 has them: T dicts with lists of one step.

        Args:
            masks: (N, M + 1, T, h, w).
            ious: (N, M + 1, T).
            scores: (N, T) or None.
        """
        if self.overwrite_absent and scores is not None:
            is_absent = scores.detach()[:, None, :, None, None] <= 0
            masks = masks.masked_fill(is_absent, ABSENT_LOGIT)
        frames = []
        for t, (mask, iou) in enumerate(zip(masks.unbind(2), ious.unbind(2), strict=True)):
            frame = {MASKS_KEY: [mask], IOUS_KEY: [iou]}
            if scores is not None:
                frame[SCORES_KEY] = [scores[:, t, None]]
            frames.append(frame)
        return frames
