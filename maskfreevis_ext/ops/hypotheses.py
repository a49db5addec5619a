"""Several masks of one object: their features, their stability, and which one to show.

Ravi et al., "SAM 2", 2024 (arXiv:2408.00714). Shape letters: N objects, M hypotheses beside the
ordinary mask, C channels, T frames, (h, w) map.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Mask logit of every cell where the object is not in the frame, as in SAM 2.
ABSENT_LOGIT = -1024.0


@torch.no_grad()
def pool_features(mask_logits: Tensor, mask_features: Tensor) -> Tensor:
    """Mean mask feature of each frame under each mask, weighted with its probability.

    One cell of zeros counts in each mean, so that an empty mask gives nearly nothing. No gradient
    passes, so that the losses of the predicted IoUs do not train masks or features.

    Args:
        mask_logits: (..., T, h, w).
        mask_features: (C, T, h, w).

    Returns:
        (..., T, C), dtype of the features.

    Example:
        >>> logits = torch.tensor([[[-99.0, 99.0, 99.0]]])  # one frame of 1 x 3 cells
        >>> features = torch.tensor([[[[5.0, 6.0, 9.0]]]])  # one channel
        >>> pool_features(logits, features)  # (6 + 9) / (2 + 1)
        tensor([[5.]])
    """
    lead = mask_logits.shape[:-3]
    probs = mask_logits.flatten(0, -4) if lead else mask_logits[None]
    probs = probs.to(mask_features.dtype).sigmoid().flatten(2).transpose(0, 1)  # (T, rows, h * w)
    features = mask_features.flatten(2).permute(1, 2, 0)  # (T, h * w, C)
    pooled = torch.bmm(probs, features) / (probs.sum(-1, keepdim=True) + 1)
    return pooled.transpose(0, 1).reshape(*lead, *pooled.shape[::2])


def stability(mask_logits: Tensor, delta: float) -> Tensor:
    """How little a mask changes with its threshold: |logit > delta| / |logit > -delta|.

    Args:
        mask_logits: (..., h, w).
        delta: Offset of the logits, >= 0.

    Returns:
        (...), in [0, 1], float32; 1 where the larger mask is empty.

    Example:
        >>> stability(torch.tensor([[-2.0, -0.5, 0.5, 2.0]]), delta=1.0)
        tensor(0.3333)
    """
    inner = (mask_logits > delta).sum((-2, -1)).float()
    outer = (mask_logits > -delta).sum((-2, -1)).float()
    return torch.where(outer > 0, inner / outer.clamp(min=1), 1.0)


def choose_hypothesis(ious: Tensor, stable: Tensor | None = None, margin: float = 0.0) -> Tensor:
    """Choose which hypothesis to show, for each object in each frame.

    Args:
        ious: Predicted IoUs, (N, M + 1, T).
        stable: Whether hypothesis 0 is stable, (N, T), bool: it is taken where it is, and the best
            of the others where it is not (SAM 2's dynamic multimask). None: the best of all, and of
            equals the first.
        margin: How much higher than that of hypothesis 0 an IoU must be; without ``stable``.

    Returns:
        (N, T), int64, in [0, M].

    Example:
        >>> ious = torch.tensor([0.6, 0.5, 0.8]).view(1, 3, 1)
        >>> choose_hypothesis(ious).item(), choose_hypothesis(ious, margin=0.3).item()
        (2, 0)
    """
    best_iou, best = ious[:, 1:].max(1)
    keep = best_iou <= ious[:, 0] + margin if stable is None else stable
    return torch.where(keep, 0, best + 1)
