"""Pairwise losses over lists of the pairs of cells that have a weight.

The weight of most pairs is zero: outside boxes, across colour edges, without a match. The other
pairs are collected in one list for all objects and all decoder outputs, and -log P(same label) is
summed over the list. The gradient has a closed form: for the logits a and b of the two cells and
s = a + b,

    d/da [softplus(a) + softplus(b) - softplus(s)] = sigmoid(a) - sigmoid(s).

The values equal those of ``dense``.
Shape letters: K decoder outputs, M cells of all objects and frames, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.scene import BoxObjects
from maskfreevis_ext.ops.boxes import masks_to_boxes
from maskfreevis_ext.ops.neighbors import Offset, pair_slices


@dataclass(frozen=True)
class CellPairs:
    """A list of weighted pairs of cells.

    Attributes:
        first: Flat index of the first cell of each pair, (P,), int64, in [0, M).
        second: Flat index of the second cell.
        weight: Weight of each pair, (P,).
    """

    first: Tensor
    second: Tensor
    weight: Tensor


@dataclass(frozen=True)
class CellValues:
    """Mask logits of the cells that are used, and what is made of them once for all lists.

    Attributes:
        logits: (K, M').
        curved: log(1 + e^-|x|) of each, (K, M'), without a graph.
        probs: Their sigmoid, (K, M'), without a graph; None where no gradient is needed.
    """

    logits: Tensor
    curved: Tensor
    probs: Tensor | None

    def rows(self, rows: slice) -> CellValues:
        """The values of some decoder outputs."""
        probs = None if self.probs is None else self.probs[rows]
        return CellValues(self.logits[rows], self.curved[rows], probs)


class UsedCells:
    """The few cells that occur in the lists of a step. The lists share them."""

    def __init__(self, num_cells: int, device: torch.device) -> None:
        """Start without a list; ``num_cells`` is M."""
        self._is_used = torch.zeros(num_cells, dtype=torch.bool, device=device)
        self._place: Tensor | None = None
        self._values: tuple[Tensor, CellValues] | None = None

    def add(self, pairs: CellPairs) -> None:
        """Add the cells of a list."""
        self._is_used[pairs.first] = True
        self._is_used[pairs.second] = True
        self._place = self._values = None

    def compact(self, pairs: CellPairs) -> CellPairs:
        """A list with indices into the used cells."""
        if self._place is None:
            self._place = self._is_used.cumsum(0) - 1
        first, second = (self._place.index_select(0, x) for x in (pairs.first, pairs.second))
        return CellPairs(first, second, pairs.weight)

    def values(self, mask_logits: Tensor) -> CellValues:
        """The values of the used cells of mask logits (K, ...), made once for the same logits."""
        if self._values is None or self._values[0] is not mask_logits:
            cells = self._is_used.nonzero()[:, 0]
            logits = mask_logits.flatten(1).index_select(1, cells)
            with torch.no_grad():
                curved = F.softplus(-logits.abs())
                probs = logits.sigmoid() if logits.requires_grad else None
            self._values = mask_logits, CellValues(logits, curved, probs)
        return self._values[1]


class ListedPairs:
    """``Pairs`` in one list; every object must have a query at every decoder output."""

    def __init__(
        self, pairs: CellPairs, group: Tensor | None, counts: Tensor, cells: UsedCells
    ) -> None:
        """Keep the list.

        Args:
            pairs: Pairs of cells of (N, T, h, w).
            group: Group of each pair, (P,), int64, in [0, n); None: there is one group.
            counts: Total weight of each group, (n,); may include pairs beyond the map.
            cells: Those of all lists of the step, which get those of this one.
        """
        self._pairs = pairs
        self._group = group
        self._counts = counts
        self._cells = cells
        cells.add(pairs)

    def counts(self, is_matched: Tensor) -> Tensor:
        """See ``Pairs.counts``."""
        return self._counts.expand(len(is_matched), -1)

    def sums(self, mask_logits: Tensor, is_matched: Tensor, normalizers: Tensor) -> Tensor:
        """See ``Pairs.sums``; every object is matched."""
        return torch.cat(
            [_sums(values, [pairs])[0] for values, pairs in self._parts(mask_logits, normalizers)]
        )

    @torch.no_grad()
    def by_object(self, mask_logits: Tensor, normalizers: Tensor) -> Tensor:
        """See ``Pairs.by_object``."""
        owner = _owner(self._pairs, mask_logits)
        num_objects = mask_logits.shape[1]
        return torch.cat(
            [
                _sums_by_owner(values, pairs, owner, num_objects)
                for values, pairs in self._parts(mask_logits, normalizers)
            ]
        )

    def _parts(
        self, mask_logits: Tensor, normalizers: Tensor
    ) -> list[tuple[CellValues, CellPairs]]:
        """Decoder outputs of equal normalizers, with the pairs and their normalized weights.

        Normalizers differ only where another process has more objects than queries.
        """
        values, pairs = self._cells.values(mask_logits), self._cells.compact(self._pairs)
        if (normalizers == normalizers[:1]).all():
            normalizers = normalizers[:1]
        step = max(len(mask_logits) // len(normalizers), 1)
        return [
            (
                values if len(normalizers) == 1 else values.rows(slice(i * step, (i + 1) * step)),
                self._normalized(pairs, of_part),
            )
            for i, of_part in enumerate(normalizers)
        ]

    def _normalized(self, pairs: CellPairs, normalizers: Tensor) -> CellPairs:
        """The pairs with weights divided by the normalizers of their groups, (n,)."""
        scale = normalizers if self._group is None else normalizers.index_select(0, self._group)
        return replace(pairs, weight=pairs.weight / scale)


def _cells_of(objects: BoxObjects) -> UsedCells:
    """The used cells of a step, which its lists share."""
    maps = objects.maps
    return objects.once("used cells", lambda: UsedCells(maps.numel(), maps.device))


def spatial_pairs(objects: BoxObjects) -> ListedPairs:
    """Neighbours of similar colour; a pair's weight is the sum of the box map at its two cells."""
    affinities, maps = objects.affinities, objects.maps
    cells = torch.arange(maps.numel(), device=maps.device).view_as(maps)
    in_box = maps > 0
    width = maps.shape[-1]
    first, second = [], []
    for offset, edge in zip(affinities.edge_offsets, affinities.edges, strict=True):
        here, there = pair_slices(offset, *maps.shape[-2:])
        counts = (in_box[(..., *here)] | in_box[(..., *there)]).logical_and_(edge[objects.clips])
        first.append(cells[(..., *here)].masked_select(counts))
        second.append(first[-1] + (offset[0] * width + offset[1]))
    starts, ends = torch.cat(first), torch.cat(second)
    flat = maps.flatten()
    weight = flat.index_select(0, starts).add_(flat.index_select(0, ends))
    total = weight.sum()
    if affinities.outside is not None:
        total = total + (affinities.outside[objects.clips] * maps).sum()
    pairs = CellPairs(starts, ends, weight)
    return ListedPairs(pairs, None, total.view(1), _cells_of(objects))


def temporal_pairs(objects: BoxObjects) -> ListedPairs:
    """Matches between two frames with weight 1, for cells inside the union of an object's boxes.

    A match beyond the map adds to the total weight of its frame pair, but not to the loss.
    """
    affinities, maps = objects.affinities, objects.maps
    map_size = maps.shape[-2:]
    region = maps.sum(1) >= 1
    planes = affinities.matches.shape[1:3]  # (E, R)
    cells = torch.arange(map_size.numel(), device=region.device).view(map_size)
    starts = torch.arange(planes.numel(), device=region.device).view(*planes, 1, 1)
    starts = starts * map_size.numel()
    found = []
    for index, (x0, y0, x1, y1) in enumerate(masks_to_boxes(region).long().tolist()):
        window = (..., slice(y0, y1), slice(x0, x1))
        counts = affinities.matches[objects.clips[index]][window] & region[index][window]
        flat = starts + (cells[window] + index * planes.numel() * map_size.numel())
        found.append(flat.masked_select(counts))
    chosen = torch.cat(found)  # flat indices in (N, E, R, h, w)
    plane = chosen.div(map_size.numel(), rounding_mode="floor")
    first, second, pair = (
        table.index_select(0, plane)
        for table in _plane_tables(affinities.pairs, affinities.search_offsets, maps)
    )
    weight = torch.bincount(pair, minlength=len(affinities.pairs)).to(maps.dtype)
    first += chosen
    second += chosen
    if affinities.outside is not None:
        inside = _inside(affinities.search_offsets, map_size, region.device).flatten()
        keep = inside[chosen % len(inside)]
        first, second, pair = first[keep], second[keep], pair[keep]
    ones = torch.ones_like(first, dtype=weight.dtype)
    return ListedPairs(CellPairs(first, second, ones), pair, weight, _cells_of(objects))


def _plane_tables(
    pairs: Sequence[tuple[int, int]], offsets: Sequence[Offset], maps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Index arithmetic from the maps (N, E, R, h, w) of matches to the mask logits (N, T, h, w).

    Returns:
        For each of the N * E * R maps, int64: the number to add to a flat index to get the cell in
        the later frame, the number for its match in the earlier frame, and the frame pair.
    """
    num_objects, num_frames, height, width = maps.shape
    frames = torch.tensor(pairs, dtype=torch.int64).view(-1, 1, 2)
    shift = torch.tensor([dy * width + dx for dy, dx in offsets])
    shape = num_objects, len(pairs), len(offsets)
    objects = torch.arange(num_objects).view(-1, 1, 1) * num_frames
    base = objects - torch.arange(math.prod(shape)).view(shape)
    base_first = (base + frames[..., 1]) * (height * width)
    base_second = (base + frames[..., 0]) * (height * width) + shift
    pair = torch.arange(len(pairs)).view(-1, 1).expand(shape)
    first, second, pair = (
        table.flatten().to(maps.device) for table in (base_first, base_second, pair)
    )
    return first, second, pair


def _inside(offsets: Sequence[Offset], map_size: Sequence[int], device: torch.device) -> Tensor:
    """For each offset, the cells whose neighbour is on the map, (R, h, w), bool."""
    inside = torch.zeros(len(offsets), *map_size, dtype=torch.bool, device=device)
    for of_offset, offset in zip(inside, offsets, strict=True):
        of_offset[pair_slices(offset, *map_size)[0]] = True
    return inside


class _PairSums(torch.autograd.Function):
    """Weighted sum of each list, (lists, K); the gradients are computed in the forward pass.

    Decoder outputs are computed one by one, so that the intermediate tensors stay in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, curved: Tensor, probs: Tensor | None, *lists: CellPairs
    ) -> Tensor:
        sums = logits.new_empty(len(lists), len(logits))
        gradients = []
        for of_list, pairs in zip(sums, lists, strict=True):
            gradient = None if probs is None else torch.zeros_like(logits)
            for k in range(len(logits)):
                value, joint = _same_label_nll(logits[k], curved[k], pairs)
                of_list[k] = torch.dot(value, pairs.weight)
                if gradient is not None:
                    _add_of_joint(gradient[k], joint, pairs)
            if gradient is not None and probs is not None:
                gradients.append(gradient.addcmul_(probs, _degree(gradient[0], pairs)))
        ctx.save_for_backward(*gradients)
        return sums

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        total = None
        for scale, gradient in zip(upstream, ctx.saved_tensors, strict=True):
            part = gradient * scale[:, None]
            total = part if total is None else total.add_(part)
        return total, None, None, *[None] * len(upstream)


def _same_label_nll(logits: Tensor, curved: Tensor, pairs: CellPairs) -> tuple[Tensor, Tensor]:
    """-log P(same label) and a + b of every pair, (P,); ``curved`` is log(1 + e^-|x|) of each cell.

    As in ``dense.same_label_nll`` the linear parts are combined first: their sum is exactly zero
    for two confident and equal labels.
    """
    first = logits.index_select(0, pairs.first)
    second = logits.index_select(0, pairs.second)
    joint = first + second
    size = joint.abs()
    value = first.abs_().add_(second.abs_()).sub_(size).mul_(0.5)
    value += curved.index_select(0, pairs.first)
    value += curved.index_select(0, pairs.second)
    value -= F.softplus(size.neg_())
    return value, joint


def _add_of_joint(gradient: Tensor, joint: Tensor, pairs: CellPairs) -> None:
    """Add -weight * sigmoid(a + b) of each pair to the gradient (M,); overwrites ``joint`` (P,)."""
    joint.sigmoid_().mul_(pairs.weight).neg_()
    gradient.scatter_add_(0, pairs.first, joint)
    gradient.scatter_add_(0, pairs.second, joint)


def _degree(like: Tensor, pairs: CellPairs) -> Tensor:
    """Total weight of the pairs that contain each cell, (M,)."""
    degree = torch.zeros_like(like)
    for side in (pairs.first, pairs.second):
        degree.scatter_add_(0, side, pairs.weight)
    return degree


def listed_pairwise_sums(mask_logits: Tensor, lists: Sequence[CellPairs]) -> Tensor:
    """Weighted sums of -log P(same label) over lists of pairs of cells.

    Args:
        mask_logits: (K, ...); flattened, the axes after the first are the M cells.
        lists: At least one list; P may be 0.

    Returns:
        (lists, K).

    Example:
        >>> pair = CellPairs(torch.tensor([0]), torch.tensor([1]), torch.tensor([2.0]))
        >>> listed_pairwise_sums(torch.tensor([[9.0, -9.0]]), [pair]).round(decimals=2)
        tensor([[16.6100]])
    """
    cells = _used_cells(mask_logits, lists)
    return _sums(cells.values(mask_logits), [cells.compact(pairs) for pairs in lists])


@torch.no_grad()
def listed_sums_by_object(mask_logits: Tensor, lists: Sequence[CellPairs]) -> Tensor:
    """``listed_pairwise_sums`` for each object separately, without a gradient.

    Args:
        mask_logits: (K, N, T, h, w); both cells of a pair belong to one object.
        lists: At least one list.

    Returns:
        (lists, K, N).

    Example:
        >>> pair = CellPairs(torch.tensor([0]), torch.tensor([1]), torch.tensor([2.0]))
        >>> logits = torch.tensor([9.0, -9.0, 9.0, 9.0]).view(1, 2, 1, 1, 2)  # two objects
        >>> listed_sums_by_object(logits, [pair]).round(decimals=2)
        tensor([[[16.6100,  0.0000]]])
    """
    cells = _used_cells(mask_logits, lists)
    values, num_objects = cells.values(mask_logits), mask_logits.shape[1]
    return torch.stack(
        [
            _sums_by_owner(values, cells.compact(pairs), _owner(pairs, mask_logits), num_objects)
            for pairs in lists
        ]
    )


def _used_cells(mask_logits: Tensor, lists: Sequence[CellPairs]) -> UsedCells:
    cells = UsedCells(mask_logits[0].numel(), mask_logits.device)
    for pairs in lists:
        cells.add(pairs)
    return cells


def _owner(pairs: CellPairs, mask_logits: Tensor) -> Tensor:
    """Object of each pair of cells of mask logits (K, N, T, h, w), (P,)."""
    return pairs.first.div(mask_logits[0, 0].numel(), rounding_mode="floor")


def _sums(values: CellValues, lists: Sequence[CellPairs]) -> Tensor:
    """Sums of lists whose indices are those of the used cells, (lists, K)."""
    return _PairSums.apply(values.logits, values.curved, values.probs, *lists)


def _sums_by_owner(values: CellValues, pairs: CellPairs, owner: Tensor, num_objects: int) -> Tensor:
    """Sums over the pairs of each object, (K, N); ``owner`` (P,) is the object of each pair."""
    sums = values.logits.new_zeros(len(values.logits), num_objects)
    for of_output, logits, curved in zip(sums, values.logits, values.curved, strict=True):
        value = _same_label_nll(logits, curved, pairs)[0]
        of_output.index_add_(0, owner, value.mul_(pairs.weight))
    return sums
