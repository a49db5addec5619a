"""Both pairwise losses of all objects at all decoder outputs, inside the objects' windows only.

The weight of a pair is zero outside boxes, so each object is cut out of the map with a margin.
-log P(same label) is summed with its gradient in closed form: with s = a + b,

    d/da [softplus(a) + softplus(b) - softplus(s)] = sigmoid(a) - sigmoid(s).

It gives the values of ``pairwise.spatial_pairwise_sums`` and ``pairwise.temporal_pairwise_sums``.
Shape letters: K decoder outputs, N objects, T frames, (h, w) map, (u, v) window of an object, P
pairs of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.ops.neighbors import Offset, pair_slices

Window = tuple[slice, slice]


@dataclass(frozen=True)
class GridPairs:
    """Pairs (p, p + offset) of one frame, for all frames of a window.

    Attributes:
        offset: (dy, dx).
        weight: Weight of each pair, (T, u', v') over the cells p of which both ends are in the
        window.
    """

    offset: Offset
    weight: Tensor


@dataclass(frozen=True)
class ListedPairs:
    """Pairs of cells of any two frames, as a list.

    Attributes:
        first: Flat indices of p in a (T, u, v) window, (P,), int64.
        second: Flat indices of the other cell, (P,).
        weight: (P,).
    """

    first: Tensor
    second: Tensor
    weight: Tensor


def windows_of(rows: Tensor, cols: Tensor, margin: int) -> list[Window | None]:
    """The part of the map that holds an object's boxes in all frames, with a margin.

    Args:
        rows: Row profiles of the boxes, (N, T, h).
        cols: Column profiles, (N, T, w).
        margin: Cells added on each side, cut at the border of the map.

    Returns:
        For each object slices of rows and columns, or None if it has no box.
    """
    windows: list[Window | None] = []
    for row, col in zip((rows > 0).any(1), (cols > 0).any(1), strict=True):
        sides = []
        for present in (row, col):
            cells = present.nonzero()
            if len(cells):
                first, last = int(cells[0]), int(cells[-1])
                sides.append(slice(max(first - margin, 0), min(last + 1 + margin, len(present))))
        windows.append((sides[0], sides[1]) if len(sides) == 2 else None)
    return windows


class _PairwiseSums(torch.autograd.Function):
    """Sums of both terms, (2, K): spatial, temporal. The gradient is made in the forward pass."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        mask_logits: Tensor,
        windows: Sequence[Window | None],
        grids: Sequence[Sequence[GridPairs]],
        lists: Sequence[Sequence[ListedPairs]],
    ) -> Tensor:
        sums = mask_logits.new_zeros(2, mask_logits.shape[0])
        with_gradient = ctx.needs_input_grad[0]
        gradients: list[tuple[Tensor, Tensor]] = []
        for index, window in enumerate(windows):
            if window is None:
                continue
            logits = mask_logits[(slice(None), index, slice(None), *window)].contiguous()
            gradient = torch.zeros(
                2 if with_gradient else 0, *logits.shape, dtype=logits.dtype, device=logits.device
            )
            probs, plus = logits.sigmoid(), F.softplus(logits)
            sums[0] += _grid_terms(logits, plus, probs, grids[index], gradient[:1])
            sums[1] += _listed_terms(logits, plus, probs, lists[index], gradient[1:])
            gradients.append(gradient)
        ctx.gradients, ctx.windows, ctx.shape = gradients, windows, mask_logits.shape
        return sums

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, upstream: Tensor
    ) -> tuple[Tensor, None, None, None]:
        result = upstream.new_zeros(ctx.shape)
        of_windows = iter(ctx.gradients)
        for index, window in enumerate(ctx.windows):
            if window is None:
                continue
            target = result[(slice(None), index, slice(None), *window)]
            gradient = next(of_windows)
            for term in range(2):
                target.addcmul_(gradient[term], upstream[term][:, None, None, None])
        return result, None, None, None


def _grid_terms(
    logits: Tensor, plus: Tensor, probs: Tensor, pairs: Sequence[GridPairs], gradient: Tensor
) -> Tensor:
    """Sum (K,) over pairs of neighbours; adds to ``gradient`` (1 or 0, K, T, u, v)."""
    total = logits.new_zeros(len(logits))
    height, width = logits.shape[-2:]
    degree = torch.zeros_like(logits[0])
    for pair in pairs:
        here, there = ((..., *side) for side in pair_slices(pair.offset, height, width))
        joint = logits[here] + logits[there]
        value = plus[here] + plus[there]
        value -= F.softplus(joint)
        total += value.flatten(1) @ pair.weight.flatten()
        if len(gradient):
            joint.sigmoid_().mul_(pair.weight)
            gradient[0][here] -= joint
            gradient[0][there] -= joint
            degree[here] += pair.weight
            degree[there] += pair.weight
    if len(gradient):
        gradient[0].addcmul_(probs, degree)
    return total


def _listed_terms(
    logits: Tensor, plus: Tensor, probs: Tensor, pairs: Sequence[ListedPairs], gradient: Tensor
) -> Tensor:
    """Sum (K,) over listed pairs; adds to ``gradient`` (1 or 0, K, T, u, v)."""
    total = logits.new_zeros(len(logits))
    flat, flat_plus, flat_probs = logits.flatten(1), plus.flatten(1), probs.flatten(1)
    for pair in pairs:
        sides = pair.first, pair.second
        joint = sum(flat.index_select(1, side) for side in sides)
        value = sum(flat_plus.index_select(1, side) for side in sides)
        value -= F.softplus(joint)
        total += value @ pair.weight
        if len(gradient):
            joint.sigmoid_()
            for side in sides:
                slope = (flat_probs.index_select(1, side) - joint).mul_(pair.weight)
                gradient[0].flatten(1).scatter_add_(1, side.expand(len(flat), -1), slope)
    return total


def windowed_pairwise_sums(
    mask_logits: Tensor,
    windows: Sequence[Window | None],
    grids: Sequence[Sequence[GridPairs]],
    lists: Sequence[Sequence[ListedPairs]],
) -> Tensor:
    """Weighted sums of -log P(same label) over pairs in frames and over pairs between frames.

    Args:
        mask_logits: (K, N, T, h, w).
        windows: N windows (``windows_of``); None: the object has no pairs.
        grids: For each object the pairs of neighbours, with the weights of the spatial term.
        lists: For each object the matches between frames, with the weights of the temporal term.

    Returns:
        (2, K): spatial and temporal sum.
    """
    return _PairwiseSums.apply(mask_logits, windows, grids, lists)
