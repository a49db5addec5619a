"""Several mask hypotheses per object, a predicted IoU for each, and a score for its presence.

The multimask decoder of SAM 2 (Ravi et al., arXiv:2408.00714, sec. 4 and appendix D), fitted to
the queries of a video decoder. It runs on a few queries only: those that were matched, or kept.

Shape letters: N queries, M extra hypotheses, D channels of a query, C of a mask embedding, T
frames, (h, w) map.
"""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from maskfreevis_ext.modeling.mlp import MLP

_NOISE = 1e-3  # standard deviation of the last weights; equal hypotheses would stay equal


class MultimaskHead(nn.Module):
    """Hypernetworks, IoU head and object-score head.

    Hypothesis 0 is the ordinary mask embedding; the others add to it what their hypernetwork makes
    of the query, which is nearly nothing at the start. The last layers of both scores start at
    zero, so that all hypotheses are rated alike and hypothesis 0 is taken: weights trained without
    the head give the masks that they gave before.
    """

    def __init__(
        self,
        query_dim: int,
        mask_dim: int,
        num_masks: int,
        iou_sigmoid: bool = True,
        pred_obj_scores: bool = True,
    ) -> None:
        """Make the layers.

        Args:
            query_dim: D.
            mask_dim: C.
            num_masks: M.
            iou_sigmoid: Predicted IoUs pass a sigmoid; otherwise they are not bounded.
            pred_obj_scores: Score the presence of the object in each frame.
        """
        super().__init__()
        self.num_masks = num_masks
        self.iou_sigmoid = iou_sigmoid
        self.mask_tokens = nn.Embedding(num_masks + 1, query_dim)
        self.hypernetworks = nn.ModuleList(
            MLP(query_dim, query_dim, mask_dim, 3) for _ in range(num_masks)
        )
        self.feature_proj = nn.Linear(mask_dim, query_dim)
        self.iou_head = MLP(query_dim, query_dim, 1, 3)
        self.object_score_head = MLP(query_dim, query_dim, 1, 3) if pred_obj_scores else None
        for hypernetwork in self.hypernetworks:
            nn.init.normal_(hypernetwork.layers[-1].weight, std=_NOISE)
            nn.init.zeros_(hypernetwork.layers[-1].bias)
        for head in filter(None, (self.iou_head, self.object_score_head)):
            nn.init.zeros_(head.layers[-1].weight)
            nn.init.zeros_(head.layers[-1].bias)
        if not iou_sigmoid:  # the middle, as with it
            nn.init.constant_(self.iou_head.layers[-1].bias, 0.5)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> MultimaskHead:
        """Build the head of ``MODEL.MULTIMASK``."""
        node = cfg.MODEL.MULTIMASK
        return cls(
            query_dim=cfg.MODEL.MASK_FORMER.HIDDEN_DIM,
            mask_dim=cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
            num_masks=node.NUM_MASKS,
            iou_sigmoid=node.IOU_SIGMOID,
            pred_obj_scores=node.PRED_OBJ_SCORES,
        )

    def embed(self, queries: Tensor, mask_embed: Tensor) -> Tensor:
        """Mask embeddings of all hypotheses.

        Args:
            queries: Normalised queries, (..., D).
            mask_embed: Their ordinary mask embeddings, (..., C).

        Returns:
            (..., M + 1, C); index 0 is ``mask_embed``.
        """
        tokens = self.mask_tokens.weight[1:]
        extra = [
            mask_embed + hypernetwork(queries + token)
            for hypernetwork, token in zip(self.hypernetworks, tokens, strict=True)
        ]
        return torch.stack([mask_embed, *extra], dim=-2)

    def rate(self, queries: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predicted IoU of each hypothesis and object score, frame by frame.

        Args:
            queries: Normalised queries, (..., D).
            pooled: What ``pool_features`` finds under each hypothesis, (..., M + 1, T, C).

        Returns:
            IoUs (..., M + 1, T), in (0, 1) with ``iou_sigmoid``, and logits of "the object is in
            the frame", (..., T), None without ``pred_obj_scores``.
        """
        seen = self.feature_proj(pooled) + queries[..., None, None, :]
        ious = self.iou_head(seen + self.mask_tokens.weight[:, None])[..., 0]
        ious = ious.sigmoid() if self.iou_sigmoid else ious
        if self.object_score_head is None:
            return ious, None
        return ious, self.object_score_head(seen[..., 0, :, :])[..., 0]
