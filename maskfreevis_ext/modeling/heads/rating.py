"""Multimask head in inference: the mask to show in each frame, and the score of the track.

Shape letters: N kept queries, M extra hypotheses, T frames, (h, w) map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskfreevis_ext.ops.hypotheses import (
    ABSENT_LOGIT,
    choose_hypothesis,
    consensus,
    stability,
)


@dataclass(frozen=True)
class RatingSettings:
    """Settings for the choice of masks and the scores of tracks (``MODEL.MULTIMASK.TEST``).

    Attributes:
        use_iou: Multiply class scores by the predicted IoU.
        use_object_score: Multiply class scores by the predicted presence of the object.
        empty_absent: Empty the mask in frames where the object is predicted to be absent.
        by_stability: Show the ordinary mask in frames where it is stable, and the best hypothesis
            in the others (SAM 2's dynamic multimask).
        stability_delta: Offset of the logits for ``ops.hypotheses.stability``.
        stability_threshold: Least stability of a stable mask, in [0, 1].
        margin: Without ``by_stability``: a hypothesis is shown only if its predicted IoU exceeds
            that of the ordinary mask by more than this.
        by_consensus: Show the hypothesis that agrees most with the others instead; the settings of
            the other ways of choosing do not matter then.
    """

    use_iou: bool = True
    use_object_score: bool = True
    empty_absent: bool = True
    by_stability: bool = False
    stability_delta: float = 0.05
    stability_threshold: float = 0.98
    margin: float = 0.0
    by_consensus: bool = False

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of the class."""
        node = cfg.MODEL.MULTIMASK
        return {
            "use_iou": node.TEST.USE_IOU,
            "use_object_score": node.TEST.USE_OBJECT_SCORE,
            "empty_absent": node.TEST.EMPTY_ABSENT,
            "by_stability": node.TEST.STABILITY,
            "stability_delta": node.STABILITY_DELTA,
            "stability_threshold": node.STABILITY_THRESH,
            "margin": node.TEST.MARGIN,
            "by_consensus": node.TEST.CONSENSUS,
        }


@dataclass(frozen=True)
class RatedMasks:
    """Mask hypotheses and ratings of the kept queries of a clip.

    Attributes:
        logits: Mask logits of all hypotheses, (N, M + 1, T, h, w).
        ious: Predicted IoUs, (N, M + 1, T).
        scores: Logits of "the object is in the frame", (N, T), or None.
        choice: Index of the hypothesis to show, (N, T), int64.
        masks: Mask logits to show, (N, T, h, w); ``ABSENT_LOGIT`` in frames without the object.
        factor: Factor of the class score of each track, (N,), in [0, 1].
    """

    logits: Tensor
    ious: Tensor
    scores: Tensor | None
    choice: Tensor
    masks: Tensor
    factor: Tensor


@torch.no_grad()
def rate_masks(
    logits: Tensor, ious: Tensor, scores: Tensor | None, settings: RatingSettings
) -> RatedMasks:
    """Choose the hypothesis to show for each object and frame, and the factor of its score.

    The factor is the predicted IoU, averaged over frames with the predicted presence of the object
    as weight, times the highest presence in any frame.

    Args:
        logits: Mask logits of all hypotheses, (N, M + 1, T, h, w).
        ious: Predicted IoUs, (N, M + 1, T).
        scores: Logits of "the object is in the frame", (N, T), or None.
        settings: Selects the parts of the rating that are used.
    """
    if settings.by_consensus:
        choice = consensus(logits).argmax(1)
    else:
        stable = None
        if settings.by_stability:
            of_ordinary = stability(logits[:, 0], settings.stability_delta)
            stable = of_ordinary >= settings.stability_threshold
        choice = choose_hypothesis(ious, stable, settings.margin)
    # gather, not take_along_dim, which would bind an exported graph to the sizes of its example
    cells = choice[:, None, :, None, None].expand(-1, -1, -1, *logits.shape[3:])
    masks = logits.gather(1, cells)[:, 0]
    presence = torch.ones_like(ious[:, 0]) if scores is None else scores.sigmoid()
    factor = presence.new_ones(logits.shape[0])
    if settings.use_iou:
        chosen = ious.gather(1, choice[:, None])[:, 0].clamp(0, 1)
        factor = (presence * chosen).sum(1) / presence.sum(1).clamp(min=1e-6)
    if settings.use_object_score:
        factor = factor * presence.amax(1)
    if settings.empty_absent and scores is not None:
        masks = masks.masked_fill((scores < 0)[..., None, None], ABSENT_LOGIT)
    return RatedMasks(logits, ious, scores, choice, masks, factor)
