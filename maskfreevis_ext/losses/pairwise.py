"""Pairwise losses: two cells that look alike have the same label, in one frame or in two.

Shape letters: K decoder outputs, N objects, T frames, E frame pairs, R search positions, (h, w)
map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.ops.neighbors import Offset, pair_slices


def same_label_nll(first: Tensor, second: Tensor) -> Tensor:
    """-log of the probability that two cells have the same label, from their logits.

    -log(p q + (1 - p)(1 - q)) = softplus(a) + softplus(b) - softplus(a + b) for logits a and b.
    The linear parts of the three are taken together, so that nothing large is subtracted.

    Args:
        first: Logits a, any shape.
        second: Logits b, broadcastable to ``first``.

    Returns:
        Values >= 0 of the broadcast shape: 0 for two sure and equal labels, ln 2 where one is 0.
    """
    total = first + second
    linear = (first.abs() + second.abs() - total.abs()) / 2
    curved = F.softplus(-first.abs()) + F.softplus(-second.abs()) - F.softplus(-total.abs())
    return linear + curved


def spatial_pairwise_sums(
    mask_logits: Tensor,
    edges: Sequence[Tensor],
    offsets: Sequence[Offset],
    box_maps: Tensor,
) -> tuple[Tensor, Tensor]:
    """Weighted sum and weight of the spatial pairwise term of each object.

    BoxInst eq. 6-7: the edge (p, q) counts with the value of the object's box map at p, and the
    edge (q, p) with that at q. Their terms are equal, so each unordered pair is evaluated once.

    Args:
        mask_logits: (K, N, T, h, w).
        edges: For each of the O half offsets (``neighbors.half_offsets``), (N, T, h', w'), bool.
        offsets: The half offsets.
        box_maps: Filled boxes, (N, T, h, w), values in [0, 1].

    Returns:
        Sums (K, N) and weights (N,).
    """
    height, width = mask_logits.shape[-2:]
    sums = mask_logits.new_zeros(mask_logits.shape[:2])
    weights = mask_logits.new_zeros(mask_logits.shape[1])
    for offset, edge in zip(offsets, edges, strict=True):
        here, there = pair_slices(offset, height, width)
        weight = (box_maps[(..., *here)] + box_maps[(..., *there)]) * edge
        nll = same_label_nll(mask_logits[(..., *here)], mask_logits[(..., *there)])
        sums = sums + (nll * weight).flatten(2).sum(-1)
        weights = weights + weight.flatten(1).sum(-1)
    return sums, weights


def temporal_pairwise_sums(
    mask_logits: Tensor,
    matches: Tensor,
    pairs: Sequence[tuple[int, int]],
    offsets: Sequence[Offset],
    regions: Tensor,
) -> tuple[Tensor, Tensor]:
    """Weighted sums and weights of the temporal (TK) term of each object and frame pair.

    MaskFreeVIS eq. 5: for the pair (a, b), the cell p of frame b and each match p + o of frame a
    that was kept are to have the same label.

    Args:
        mask_logits: (K, N, T, h, w).
        matches: (N, E, R, h, w), bool; at p, whether p + offset of frame a matches p of frame b.
        pairs: E pairs (a, b).
        offsets: R offsets.
        regions: Cells p that count, (N, h, w), values 0 or 1.

    Returns:
        Sums (K, N, E) and weights (N, E).
    """
    height, width = mask_logits.shape[-2:]
    frames = mask_logits.unbind(2)
    sums, weights = [], []
    for index, (a, b) in enumerate(pairs):
        weight = matches[:, index] * regions[:, None]
        total = mask_logits.new_zeros(mask_logits.shape[:2])
        for position, offset in enumerate(offsets):
            here, there = pair_slices(offset, height, width)
            nll = same_label_nll(frames[b][(..., *here)], frames[a][(..., *there)])
            total = total + (nll * weight[:, position][(..., *here)]).flatten(2).sum(-1)
        sums.append(total)
        weights.append(weight.flatten(1).sum(-1))
    if not pairs:
        return (
            mask_logits.new_zeros((*mask_logits.shape[:2], 0)),
            mask_logits.new_zeros((mask_logits.shape[1], 0)),
        )
    return torch.stack(sums, dim=-1), torch.stack(weights, dim=-1)
