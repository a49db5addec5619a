"""Pairwise losses on whole maps, neighbour by neighbour, without waiting for the GPU.

Shape letters: K decoder outputs, N objects, T frames, E frame pairs, R search positions, (h, w)
map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.scene import BoxObjects
from maskfreevis_ext.ops.neighbors import Offset, pair_slices

#: Signature of ``spatial_pairwise_sums`` and ``temporal_pairwise_sums``.
PairwiseSums = Callable[..., tuple[Tensor, Tensor]]


class MapPairs:
    """``Pairs`` that are summed over whole maps."""

    def __init__(self, sums_of: Callable[[Tensor], Tensor], weights: Tensor) -> None:
        """Keep the function of the sums, and the weights.

        Args:
            sums_of: Maps mask logits (K, N, T, h, w) to the weighted sums by object, (K, N, n).
            weights: Total weight of the pairs of each object and group, (N, n).
        """
        self._sums_of = sums_of
        self._weights = weights

    def counts(self, is_matched: Tensor) -> Tensor:
        """See ``Pairs.counts``."""
        return is_matched @ self._weights.to(is_matched.dtype)

    def sums(self, mask_logits: Tensor, is_matched: Tensor, normalizers: Tensor) -> Tensor:
        """See ``Pairs.sums``."""
        return (self._of_objects(mask_logits, normalizers) * is_matched).sum(1)

    @torch.no_grad()
    def by_object(self, mask_logits: Tensor, normalizers: Tensor) -> Tensor:
        """See ``Pairs.by_object``."""
        return self._of_objects(mask_logits, normalizers)

    def _of_objects(self, mask_logits: Tensor, normalizers: Tensor) -> Tensor:
        return (self._sums_of(mask_logits) / normalizers[:, None]).sum(-1)


def spatial_pairs(objects: BoxObjects, sums: PairwiseSums) -> MapPairs:
    """Pairs of neighbours with similar colour inside the boxes.

    Args:
        objects: The objects.
        sums: ``spatial_pairwise_sums`` of this module or of ``triton``.
    """
    affinities, clips, maps = objects.affinities, objects.clips, objects.maps
    edges = [edge[clips] for edge in affinities.edges]

    def both(mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        return sums(mask_logits, edges, affinities.edge_offsets, maps)

    weights = both(_no_output(maps))[1]
    if affinities.outside is not None:
        weights = weights + (affinities.outside[clips] * maps).sum((1, 2, 3))
    return MapPairs(lambda mask_logits: both(mask_logits)[0][..., None], weights[:, None])


def temporal_pairs(objects: BoxObjects, sums: PairwiseSums) -> MapPairs:
    """Matches between two frames, for the cells inside the union of an object's boxes.

    Args:
        objects: The objects.
        sums: ``temporal_pairwise_sums`` of this module or of ``triton``.
    """
    affinities, maps = objects.affinities, objects.maps
    matches = affinities.matches[objects.clips]
    regions = (maps.sum(1) >= 1).to(maps.dtype)

    def both(mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        return sums(mask_logits, matches, affinities.pairs, affinities.search_offsets, regions)

    return MapPairs(lambda mask_logits: both(mask_logits)[0], both(_no_output(maps))[1])


def _no_output(maps: Tensor) -> Tensor:
    """Mask logits with K = 0, (0, N, T, h, w), to compute the weights without any sum."""
    return maps.new_zeros(0, *maps.shape)


def same_label_nll(first: Tensor, second: Tensor) -> Tensor:
    """-log of the probability that two cells have the same label, from their logits.

    -log(p q + (1 - p)(1 - q)) = softplus(a) + softplus(b) - softplus(a + b) for logits a and b.
    The linear parts of the three softplus are combined first, so that no large numbers are
    subtracted from each other.

    Args:
        first: Logits a, any shape.
        second: Logits b, broadcastable to ``first``.

    Returns:
        Values >= 0 of the broadcast shape: 0 for two confident and equal labels, ln 2 where one
        logit is 0.

    Example:
        >>> same_label_nll(torch.tensor([0.0, 9.0]), torch.tensor([5.0, 9.0])).round(decimals=3)
        tensor([0.6930, 0.0000])
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

    BoxInst eq. 6-7: the weight of the edge (p, q) is the value of the object's box map at p, and
    that of the edge (q, p) its value at q. Their losses are equal, so each pair is evaluated once.

    Args:
        mask_logits: (K, N, T, h, w); with K = 0 only the weights are computed.
        edges: For each of the O half offsets (``neighbors.half_offsets``), (N, T, h', w'), bool.
        offsets: The half offsets.
        box_maps: Filled boxes, (N, T, h, w), values in [0, 1].

    Returns:
        Sums (K, N) and weights (N,).

    Example:
        >>> logits = torch.tensor([9.0, -9.0]).view(1, 1, 1, 1, 2)  # two cells, labels differ
        >>> edge, box = torch.ones(1, 1, 1, 1, dtype=torch.bool), torch.ones(1, 1, 1, 2)
        >>> sums, weights = spatial_pairwise_sums(logits, [edge], [(0, 1)], box)
        >>> round(sums.item(), 2), weights.item()
        (16.61, 2.0)
    """
    height, width = mask_logits.shape[-2:]
    sums = mask_logits.new_zeros(mask_logits.shape[:2])
    weights = mask_logits.new_zeros(mask_logits.shape[1])
    for offset, edge in zip(offsets, edges, strict=True):
        here, there = pair_slices(offset, height, width)
        weight = (box_maps[(..., *here)] + box_maps[(..., *there)]) * edge
        weights = weights + weight.flatten(1).sum(-1)
        if len(mask_logits) == 0:  # only the weights are wanted: no calls for empty tensors
            continue
        nll = same_label_nll(mask_logits[(..., *here)], mask_logits[(..., *there)])
        sums = sums + (nll * weight).flatten(2).sum(-1)
    return sums, weights


def temporal_pairwise_sums(
    mask_logits: Tensor,
    matches: Tensor,
    pairs: Sequence[tuple[int, int]],
    offsets: Sequence[Offset],
    regions: Tensor,
) -> tuple[Tensor, Tensor]:
    """Weighted sums and weights of the temporal (TK) term of each object and frame pair.

    MaskFreeVIS eq. 5: for the frame pair (a, b), cell p of frame b and each of its matches p + o in
    frame a should have the same label.

    Args:
        mask_logits: (K, N, T, h, w); with K = 0 only the weights are computed.
        matches: (N, E, R, h, w), bool; at p, whether p + offset of frame a matches p of frame b.
        pairs: E pairs (a, b).
        offsets: R offsets.
        regions: Cells p that count, (N, h, w), values 0 or 1.

    Returns:
        Sums (K, N, E) and weights (N, E).

    Example:
        >>> logits = torch.tensor([9.0, -9.0]).view(1, 1, 2, 1, 1)  # one cell, two frames
        >>> match, region = torch.ones(1, 1, 1, 1, 1, dtype=torch.bool), torch.ones(1, 1, 1)
        >>> sums, weights = temporal_pairwise_sums(logits, match, [(0, 1)], [(0, 0)], region)
        >>> round(sums.item(), 2), weights.item()
        (8.31, 1.0)
    """
    height, width = mask_logits.shape[-2:]
    frames = mask_logits.unbind(2)
    sums, weights = [], []
    for index, (a, b) in enumerate(pairs):
        weight = matches[:, index] * regions[:, None]
        total = mask_logits.new_zeros(mask_logits.shape[:2])
        # with K = 0 only the weights are wanted: no calls for empty tensors
        for position, offset in enumerate(offsets if len(mask_logits) else ()):
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
