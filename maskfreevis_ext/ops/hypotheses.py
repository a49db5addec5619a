"""Mask hypotheses of an object: pooled features, stability, and the choice of one to show.

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
    """Mean of the mask features in each frame, weighted by the probabilities of each mask.

    The weights are extended by one cell of zero features, so that an empty mask gives almost zero.
    No gradient passes, so that the losses of the predicted IoUs do not train masks or features.

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
    """Stability score of a mask, the IoU of two thresholds: |logit > delta| / |logit > -delta|.

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


def consensus(mask_logits: Tensor) -> Tensor:
    """Mean IoU of each hypothesis with the others of the same object, in each frame.

    Args:
        mask_logits: (N, M + 1, T, h, w).

    Returns:
        (N, M + 1, T), in [0, 1], float32; two empty masks have the IoU 0.

    Example:
        >>> logits = torch.tensor([[1.0, 1, -1], [1, 1, 1], [1, -1, -1]]).view(1, 3, 1, 1, 3)
        >>> consensus(logits).flatten()  # of {a, b}, {a, b, c} and {a}
        tensor([0.5833, 0.5000, 0.4167])
    """
    masks = (mask_logits > 0).flatten(3).transpose(1, 2).float()  # (N, T, M + 1, h * w)
    overlap = masks @ masks.transpose(-2, -1)
    areas = masks.sum(-1)
    union = areas[..., :, None] + areas[..., None, :] - overlap
    ious = overlap / union.clamp(min=1)
    ious = ious - torch.diag_embed(ious.diagonal(dim1=-2, dim2=-1))
    return (ious.sum(-1) / max(masks.shape[2] - 1, 1)).transpose(1, 2)


def choose_hypothesis(ious: Tensor, stable: Tensor | None = None, margin: float = 0.0) -> Tensor:
    """Choose which hypothesis to show, for each object in each frame.

    Args:
        ious: Predicted IoUs, (N, M + 1, T).
        stable: Whether hypothesis 0 is stable, (N, T), bool. Where it is, it is chosen, elsewhere
            the best of the others (SAM 2's dynamic multimask). None: the best of all is chosen,
            the first of equal ones.
        margin: Without ``stable``: choose another hypothesis than 0 only if its predicted IoU is
            higher by more than this.

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
