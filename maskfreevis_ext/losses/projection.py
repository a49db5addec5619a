"""Box projection loss: the projections of a mask on the two axes are those of its box.

Tian et al., "BoxInst", CVPR 2021 (arXiv:2012.02310), eq. 1-2, per frame as in MaskFreeVIS.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPS = 1e-5  # of the reference's Dice coefficient


def dice_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - 2 <x, y> / (<x, x> + <y, y> + 1e-5) over the last axis.

    Args:
        prediction: Probabilities, (..., n).
        target: Values in [0, 1], broadcastable to ``prediction``.

    Returns:
        (...), in [0, 1].
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
    """Distance of the projections of a mask to those of its box, for every object and frame.

    Where the box is empty, because the object is absent from the frame, Dice is the constant 1
    with no gradient, whatever the mask. With ``empty_frame_weight`` the value there is that weight
    times the mean probability of both projections, which is 0 for an empty mask and falls with
    every cell.

    Args:
        row_logits: Largest logit of each row, (..., N, T, h).
        col_logits: Largest logit of each column, (..., N, T, w).
        row_target: Row profile of the box, (N, T, h), values in [0, 1].
        col_target: Column profile of the box, (N, T, w).
        empty_frame_weight: Weight of the penalty in frames without the object; 0: the constant 2.

    Returns:
        (..., N, T), sum of both axes, in [0, 2].
    """
    rows, cols = row_logits.sigmoid(), col_logits.sigmoid()
    loss = dice_distance(rows, row_target) + dice_distance(cols, col_target)
    if empty_frame_weight == 0:
        return loss
    is_absent = (row_target.amax(-1) == 0) | (col_target.amax(-1) == 0)
    return torch.where(is_absent, empty_frame_weight * (rows.mean(-1) + cols.mean(-1)), loss)
