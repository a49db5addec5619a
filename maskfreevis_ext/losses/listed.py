"""Both pairwise losses of all objects at all decoder outputs, over lists of pairs of cells.

The weight of most pairs is zero: outside boxes, across colour edges, without a match. The others
stand in a list that is the same for all decoder outputs, and -log P(same label) is summed over it
with its gradient in closed form: with s = a + b,

    d/da [softplus(a) + softplus(b) - softplus(s)] = sigmoid(a) - sigmoid(s).

It gives the values of ``pairwise.spatial_pairwise_sums`` and ``pairwise.temporal_pairwise_sums``.
Shape letters: K decoder outputs, M cells of all objects and frames, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class CellPairs:
    """Pairs of cells.

    Attributes:
        first: Flat indices of one cell, (P,), int64, in [0, M).
        second: Flat indices of the other.
        weight: (P,).
    """

    first: Tensor
    second: Tensor
    weight: Tensor


class _PairSums(torch.autograd.Function):
    """Sums of each list, (lists, K). The gradients are made in the forward pass."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, logits: Tensor, *lists: CellPairs
    ) -> Tensor:
        plus, probs = F.softplus(logits), logits.sigmoid()
        sums, gradients = [], []
        for pairs in lists:
            value, joint = _same_label_nll(logits, plus, pairs)
            sums.append(value @ pairs.weight)
            if ctx.needs_input_grad[0]:
                gradients.append(_gradient(probs, joint.sigmoid_(), pairs))
        ctx.save_for_backward(*gradients)
        return torch.stack(sums)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, upstream: Tensor
    ) -> tuple[Tensor | None, ...]:
        total = None
        for scale, gradient in zip(upstream, ctx.saved_tensors, strict=True):
            part = gradient * scale[:, None]
            total = part if total is None else total.add_(part)
        return total, *[None] * len(upstream)


def _same_label_nll(logits: Tensor, plus: Tensor, pairs: CellPairs) -> tuple[Tensor, Tensor]:
    """-log P(same label) and a + b of every pair, (K, P); ``plus`` = softplus(logits), (K, M)."""
    joint = logits.index_select(1, pairs.first).add_(logits.index_select(1, pairs.second))
    value = plus.index_select(1, pairs.first).add_(plus.index_select(1, pairs.second))
    value -= F.softplus(joint)
    return value, joint


def _gradient(probs: Tensor, joint_probs: Tensor, pairs: CellPairs) -> Tensor:
    """Gradient (K, M) of a list's sum; ``joint_probs`` = sigmoid(a + b), (K, P), is used up."""
    joint_probs *= -pairs.weight
    gradient = torch.zeros_like(probs)
    degree = torch.zeros_like(probs[0])
    for side in (pairs.first, pairs.second):
        gradient.scatter_add_(1, side.expand(len(probs), -1), joint_probs)
        degree.scatter_add_(0, side, pairs.weight)
    return gradient.addcmul_(probs, degree)


def listed_pairwise_sums(mask_logits: Tensor, lists: Sequence[CellPairs]) -> Tensor:
    """Weighted sums of -log P(same label) over lists of pairs of cells.

    Args:
        mask_logits: (K, ...), whose other axes are the M cells in order.
        lists: At least one list; P may be 0.

    Returns:
        (lists, K).
    """
    logits, compact = _compact(mask_logits, lists)
    return _PairSums.apply(logits, *compact)


@torch.no_grad()
def listed_sums_by_object(mask_logits: Tensor, lists: Sequence[CellPairs]) -> Tensor:
    """``listed_pairwise_sums`` of each object by itself, without a gradient.

    Args:
        mask_logits: (K, N, T, h, w); both cells of a pair belong to one object.
        lists: At least one list.

    Returns:
        (lists, K, N).
    """
    num_objects = mask_logits.shape[1]
    objects = [pairs.first.div(mask_logits[0, 0].numel(), rounding_mode="floor") for pairs in lists]
    logits, compact = _compact(mask_logits, lists)
    sums = logits.new_zeros(len(lists), len(logits), num_objects)
    for of_list, pairs, owner in zip(sums, compact, objects, strict=True):
        value = _same_label_nll(logits, F.softplus(logits), pairs)[0]
        of_list.index_add_(1, owner, value.mul_(pairs.weight))
    return sums


def _compact(mask_logits: Tensor, lists: Sequence[CellPairs]) -> tuple[Tensor, list[CellPairs]]:
    """The logits of the few cells that stand in a list (K, M'), and the lists by their indices."""
    logits = mask_logits.flatten(1)
    is_used = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
    for pairs in lists:
        is_used[pairs.first] = True
        is_used[pairs.second] = True
    place = is_used.cumsum(0) - 1
    compact = [
        CellPairs(
            place.index_select(0, pairs.first), place.index_select(0, pairs.second), pairs.weight
        )
        for pairs in lists
    ]
    return logits.index_select(1, is_used.nonzero()[:, 0]), compact
