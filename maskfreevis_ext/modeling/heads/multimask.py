"""Several mask hypotheses per object, a predicted IoU for each, and a score for its presence.

The multimask decoder of SAM 2 (Ravi et al., arXiv:2408.00714, sec. 4 and appendix D), adapted to
the queries of a video decoder. It runs on few queries only: the matched ones in training, the kept
ones in inference.

Shape letters: N queries, M extra hypotheses, D channels of a query, C channels of a mask embedding,
T frames, (h, w) map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskfreevis_ext.losses.hypotheses import BEST, HYPOTHESES, Hypotheses, best_by_boxes
from maskfreevis_ext.losses.matched_masks import of_queries, zero_anchor
from maskfreevis_ext.losses.multimask_terms import MULTIMASK_TERMS
from maskfreevis_ext.losses.scene import Scene
from maskfreevis_ext.losses.term import LossTerm
from maskfreevis_ext.modeling.heads.base import AUX_HEAD_REGISTRY, AuxHead, Rating
from maskfreevis_ext.modeling.heads.rating import RatedMasks, RatingSettings, rate_masks
from maskfreevis_ext.modeling.mlp import MLP
from maskfreevis_ext.ops.dtypes import at_least_float32
from maskfreevis_ext.ops.hypotheses import pool_features
from maskfreevis_ext.ops.reduce import send

_NOISE = 1e-3  # standard deviation of the initial last weights; equal ones would stay equal


@AUX_HEAD_REGISTRY.register()
class MultimaskHead(AuxHead):
    """Hypernetworks, IoU head and object-score head.

    Hypothesis 0 is the ordinary mask embedding. Each of the others adds the output of its own
    hypernetwork to it, which is close to zero at the start. The last layers of the IoU and the
    score start at zero, so that all hypotheses have the same rating and hypothesis 0 is chosen:
    weights trained without the head give the same masks with it.
    """

    name = "multimask_head"
    needs_embeddings = True

    def __init__(
        self,
        query_dim: int,
        mask_dim: int,
        num_masks: int,
        iou_sigmoid: bool = True,
        pred_obj_scores: bool = True,
        rating: RatingSettings | None = None,
    ) -> None:
        """Make the layers.

        Args:
            query_dim: D.
            mask_dim: C.
            num_masks: M.
            iou_sigmoid: Apply a sigmoid to the predicted IoUs; without it they are not bounded.
            pred_obj_scores: Predict a score for the object's presence in each frame.
            rating: Choice of masks and computation of scores in inference; None: the defaults.
        """
        super().__init__()
        self.num_masks = num_masks
        self.iou_sigmoid = iou_sigmoid
        self.rating = rating or RatingSettings()
        self.mask_tokens = nn.Embedding(num_masks + 1, query_dim)
        hypernetworks = [MLP(query_dim, query_dim, mask_dim, 3) for _ in range(num_masks)]
        self.hypernetworks = nn.ModuleList(hypernetworks)
        self.feature_proj = nn.Linear(mask_dim, query_dim)
        self.iou_head = MLP(query_dim, query_dim, 1, 3)
        self.object_score_head = MLP(query_dim, query_dim, 1, 3) if pred_obj_scores else None
        for hypernetwork in hypernetworks:
            hypernetwork.init_last(std=_NOISE)
        # the initial IoU is 0.5, with and without a sigmoid
        self.iou_head.init_last(bias=0.0 if iou_sigmoid else 0.5)
        if self.object_score_head is not None:
            self.object_score_head.init_last()

    @classmethod
    def is_enabled(cls, cfg: Any) -> bool:
        """``MODEL.MULTIMASK.ENABLED``."""
        return cfg.MODEL.MULTIMASK.ENABLED

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> dict[str, Any]:
        """Arguments of ``__init__``, from ``MODEL.MULTIMASK``."""
        node = cfg.MODEL.MULTIMASK
        return {
            "query_dim": cfg.MODEL.MASK_FORMER.HIDDEN_DIM,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            "num_masks": node.NUM_MASKS,
            "iou_sigmoid": node.IOU_SIGMOID,
            "pred_obj_scores": node.PRED_OBJ_SCORES,
            "rating": RatingSettings(**RatingSettings.from_config(cfg)),
        }

    @classmethod
    def loss_terms(cls, cfg: Any) -> list[LossTerm]:
        """SAM 2's four terms; two of them replace the point-sampled mask terms."""
        return [term(**term.from_config(cfg)) for term in MULTIMASK_TERMS]

    def prepare(self, scene: Scene) -> None:
        """Compute and rate all hypotheses of the matched queries."""
        hypotheses = self.make_hypotheses(
            scene.layers, scene.queries, scene.clips, scene.all_matched
        )
        scene.anchor = hypotheses.anchor
        scene.give(HYPOTHESES, hypotheses)

    def choose(
        self, scene: Scene, terms: Sequence[LossTerm], normalizers: dict[str, Tensor]
    ) -> None:
        """Pass the hypothesis with the lowest box loss of each object to the box terms."""
        hypotheses = scene.given(HYPOTHESES).of_clips(scene.with_boxes)
        best = best_by_boxes(hypotheses, scene, terms, normalizers)
        scene.give(BEST, best)
        scene.box_masks = hypotheses.chosen(best)

    def rate(self, outputs: dict[str, Tensor], kept: Tensor) -> Rating:
        """The masks of the hypothesis to show in each frame, and the factors of the scores."""
        rated = self.rated_masks(outputs, kept)
        return Rating(rated.masks, rated.factor)

    @torch.no_grad()
    def rated_masks(self, outputs: dict[str, Tensor], kept: Tensor) -> RatedMasks:
        """All hypotheses of the kept queries of a clip, their ratings, and the choice to show.

        Args:
            outputs: ``pred_masks`` (Q, T, h, w), ``queries`` (Q, D), ``mask_embed`` (Q, C) and
                ``mask_features`` (C, T, h, w).
            kept: Queries to rate, (N,), int64.
        """
        dtype = self.mask_tokens.weight.dtype  # the outputs or the whole model may be in bfloat16
        tokens, ordinary = (outputs[name][kept].to(dtype) for name in ("queries", "mask_embed"))
        features = at_least_float32(outputs["mask_features"])
        logits = self.embed(tokens, ordinary).to(features.dtype) @ features.flatten(1)
        logits = logits.unflatten(-1, features.shape[1:])
        logits[:, 0] = outputs["pred_masks"][kept]
        ious, scores = self.ratings(tokens, pool_features(logits, features).to(dtype))
        scores = None if scores is None else at_least_float32(scores)
        return rate_masks(logits, at_least_float32(ious), scores, self.rating)

    def embed(self, queries: Tensor, mask_embed: Tensor) -> Tensor:
        """Mask embeddings of all hypotheses.

        Args:
            queries: Normalised queries, (..., D).
            mask_embed: Ordinary mask embeddings of the queries, (..., C).

        Returns:
            (..., M + 1, C); index 0 is ``mask_embed``.
        """
        tokens = self.mask_tokens.weight[1:]
        extra = [
            mask_embed + hypernetwork(queries + token)
            for hypernetwork, token in zip(self.hypernetworks, tokens, strict=True)
        ]
        return torch.stack([mask_embed, *extra], dim=-2)

    def ratings(self, queries: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predicted IoU of each hypothesis, and object score, in every frame.

        Args:
            queries: Normalised queries, (..., D).
            pooled: Features of ``pool_features`` for each hypothesis, (..., M + 1, T, C).

        Returns:
            IoUs (..., M + 1, T), in (0, 1) with ``iou_sigmoid``; and logits of "the object is in
            the frame", (..., T), or None without ``pred_obj_scores``.
        """
        seen = self.feature_proj(pooled) + queries[..., None, None, :]
        ious = self.iou_head(seen + self.mask_tokens.weight[:, None])[..., 0]
        ious = ious.sigmoid() if self.iou_sigmoid else ious
        if self.object_score_head is None:
            return ious, None
        return ious, self.object_score_head(seen[..., 0, :, :])[..., 0]

    def make_hypotheses(
        self,
        layers: Sequence[Mapping[str, Tensor]],
        queries: Tensor,
        clips: Tensor,
        all_matched: bool,
    ) -> Hypotheses:
        """Run the head on the matched queries.

        Args:
            layers: K decoder outputs with ``pred_logits``, ``pred_masks``, ``mask_embed`` and
                ``queries``; the first one also with ``mask_features``.
            queries: (K, N), -1 where an object has no query.
            clips: Index of each object's clip, (N,), int64, on the CPU, ascending.
            all_matched: Whether no entry of ``queries`` is -1.
        """
        names = "queries", "mask_embed", "pred_masks"
        tokens, ordinary, masks = (
            at_least_float32(of_queries(layers, name, queries, clips)) for name in names
        )
        mask_features = at_least_float32(layers[0]["mask_features"])
        embeddings = self.embed(tokens, ordinary).transpose(1, 2)  # (K, M + 1, N, C)
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
        ious, scores = self.ratings(tokens, pooled.transpose(1, 2))
        anchor = zero_anchor(layers) + 0 * (embeddings.sum() + ious.sum())
        if scores is not None:
            anchor = anchor + 0 * scores.sum()
        if len(clips) == 0:  # otherwise the features get their gradient through the masks
            anchor = anchor + mask_features[..., :0].sum()
        is_matched = (queries >= 0).to(logits.dtype)
        ious = ious.transpose(1, 2)
        return Hypotheses(
            logits, embeddings, mask_features, ious, scores, is_matched, clips, anchor, all_matched
        )
