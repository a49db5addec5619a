"""Sums over the valid pixels of a spatial mask, which are the pixels with ground truth.

Shape letters: B clips, T frames, (H, W) pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.mask import point_dice


def variation_sums(probs: Tensor, valid: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Sum and number of the differences between horizontal and vertical neighbours.

    Args:
        probs: (..., H, W), in [0, 1].
        valid: Same shape, bool; a pair counts where both pixels are valid.

    Returns:
        "dx" and "dy": each the sum of absolute differences and the number of pairs.

    Example:
        >>> probs = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        >>> sums = variation_sums(probs, torch.ones(2, 2, dtype=torch.bool))
        >>> [total.item() for total, _ in (sums["dx"], sums["dy"])]
        [2.0, 0.0]
    """
    pair_x = valid[..., 1:] & valid[..., :-1]
    pair_y = valid[..., 1:, :] & valid[..., :-1, :]
    change_x = (probs[..., 1:] - probs[..., :-1]).abs()
    change_y = (probs[..., 1:, :] - probs[..., :-1, :]).abs()
    return {
        "dx": (torch.where(pair_x, change_x, 0.0).sum(), pair_x.sum()),
        "dy": (torch.where(pair_y, change_y, 0.0).sum(), pair_y.sum()),
    }


def temporal_sums(probs: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of |p_t - p_{t+1}| (1 - y_t) over consecutive frames, and the number of pixel pairs.

    Foreground pixels add 0 to the sum but count as pairs. The frames are not aligned by motion, so
    this fits a camera that stands still.

    Args:
        probs: (B, T, ..., H, W), in [0, 1].
        labels: Same shape, in {0, 1}.
        valid: Same shape, bool; a pair counts where both pixels are valid.

    Returns:
        Sum and number, two scalars. For T < 2 both are 0; the sum has a gradient path.

    Example:
        >>> probs = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)  # a pixel that becomes foreground
        >>> valid = torch.ones(1, 2, 1, 1, dtype=torch.bool)
        >>> total, pairs = temporal_sums(probs, torch.zeros(1, 2, 1, 1), valid)
        >>> total.item(), pairs.item()
        (1.0, 1)
    """
    pair = valid[:, 1:] & valid[:, :-1]
    change = (probs[:, 1:] - probs[:, :-1]).abs() * (1 - labels[:, :-1])
    return torch.where(pair, change, 0.0).sum(), pair.sum()


def bce_sum(logits: Tensor, labels: Tensor, valid: Tensor, pos_weight: Tensor) -> Tensor:
    """BCE summed over the valid pixels.

    Args:
        logits: (..., H, W).
        labels: Same shape, in {0, 1}.
        valid: Same shape, bool.
        pos_weight: Weight of foreground pixels, a scalar.

    Example:
        >>> valid = torch.tensor([[True, False]])
        >>> bce_sum(torch.zeros(1, 2), torch.ones(1, 2), valid, torch.tensor(2.0)).round(decimals=3)
        tensor(1.3860)
    """
    bce = F.binary_cross_entropy_with_logits(
        logits, labels, reduction="none", pos_weight=pos_weight.to(logits.dtype)
    )
    return torch.where(valid, bce, 0.0).sum()


def dice_sum(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Dice loss of each frame over its valid pixels, summed; 0 for a frame without valid pixels.

    Args:
        logits: (..., H, W).
        labels: Same shape, in {0, 1}.
        valid: Same shape, bool.

    Example:
        >>> logits, labels = torch.full((2, 1, 2), 99.0), torch.ones(2, 1, 2)
        >>> dice_sum(logits, labels, torch.ones(2, 1, 2, dtype=torch.bool))
        tensor(0.)
    """
    logits = logits.masked_fill(~valid, -torch.inf)  # probability 0 without gradient
    return point_dice(logits.flatten(-2), labels.flatten(-2)).sum()
