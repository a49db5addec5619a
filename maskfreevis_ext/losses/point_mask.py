"""Mask losses at sampled points, and the same quantities as matching costs.

Cheng et al., "Masked-attention Mask Transformer", CVPR 2022 (arXiv:2112.01527), sec. 3.3.
Shape letters: Q queries, N objects, S masks, P points.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def point_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of each mask, mean over its points.

    Args:
        logits: (S, P).
        labels: (S, P), in [0, 1].

    Returns:
        (S,), >= 0.
    """
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)


def point_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - (2 <p, y> + 1) / (sum p + sum y + 1) of each mask over its points.

    Args:
        logits: (S, P).
        labels: (S, P), in [0, 1].

    Returns:
        (S,), in [0, 1).
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
    """
    overlap = probs @ labels.T
    total = probs.sum(-1, keepdim=True) + labels.sum(-1)
    return 1 - (2 * overlap + 1) / (total + 1)
