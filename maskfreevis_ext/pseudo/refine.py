"""Sharper probabilities from colour: cells of like colour, in a frame and in its neighbours, agree.

A mean field in the sense of fully connected CRFs (Krähenbühl and Koltun, NIPS 2011), over a few
fixed neighbours. N objects, T frames, S x S cells of windows that follow their objects, so that the
same cell of two frames shows about the same part of an object.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskfreevis_ext.ops.neighbors import Offset, pair_slices

_EPS = 1e-3
#: Half of a neighbourhood of a cell, in its frame ...
_OFFSETS: tuple[Offset, ...] = tuple(
    (dy * distance, dx * distance)
    for distance in (1, 2, 4)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1))
)
#: ... and all of it in the frame before or after.
_TEMPORAL_OFFSETS: tuple[Offset, ...] = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


def refine(
    probabilities: Tensor,
    lab: Tensor,
    iterations: int = 10,
    spatial_weight: float = 8.0,
    temporal_weight: float = 8.0,
    color_scale: float = 5.0,
) -> Tensor:
    """Mean field of the objects' probabilities.

    The logit of a cell becomes its own plus, for each kind of neighbours, the weight times the mean
    of their signed probabilities (2 p - 1), weighted by colour, times the square root of the mean
    colour weight, so that a cell unlike its neighbours stays as it is.

    Args:
        probabilities: (N, T, S, S) in [0, 1].
        lab: (N, T, 3, S, S).
        iterations: Rounds.
        spatial_weight: Of the neighbours in the frame.
        temporal_weight: Of those in the frames before and after.
        color_scale: Standard deviation of the colour weight exp(-d^2 / (2 s^2)), in units of Lab.

    Returns:
        (N, T, S, S) in [0, 1].
    """
    parts = [
        _refine_object(one, colors, iterations, (spatial_weight, temporal_weight), color_scale)
        for one, colors in zip(probabilities, lab, strict=True)
    ]
    return torch.stack(parts)


def _refine_object(
    probabilities: Tensor,
    lab: Tensor,
    iterations: int,
    weights: tuple[float, float],
    color_scale: float,
) -> Tensor:
    unary = torch.logit(probabilities.clamp(_EPS, 1 - _EPS))
    spatial = [_Link(lab, lab, offset, color_scale) for offset in _OFFSETS]
    temporal = [_Link(lab[:-1], lab[1:], offset, color_scale) for offset in _TEMPORAL_OFFSETS]
    logits = unary
    for _ in range(iterations):
        signed = 2 * logits.sigmoid() - 1
        logits = unary + weights[0] * _frame_message(signed, spatial)
        if len(lab) > 1:
            logits = logits + weights[1] * _chain_message(signed, temporal)
    return logits.sigmoid()


class _Link:
    """Colour weights between the cells of a map and those of another at an offset.

    Args:
        lab: (T, 3, S, S).
        other: (T, 3, S, S).
        offset: Cell p of ``lab`` is linked with p + offset of ``other``.
        color_scale: As in ``refine``.
    """

    def __init__(self, lab: Tensor, other: Tensor, offset: Offset, color_scale: float) -> None:
        self.here, self.there = pair_slices(offset, *lab.shape[-2:])
        difference = lab[(..., *self.here)] - other[(..., *self.there)]
        self.weight = (difference.square().sum(1) / (-2 * color_scale**2)).exp()


def _collect(sums: Tensor, counts: Tensor, values: Tensor, links: list[_Link], back: bool) -> None:
    """Add what the links carry to the cells of one map, from the values of the other."""
    for link in links:
        to, source = (link.there, link.here) if back else (link.here, link.there)
        sums[(..., *to)] += link.weight * values[(..., *source)]
        counts[(..., *to)] += link.weight


def _frame_message(values: Tensor, links: list[_Link]) -> Tensor:
    """Messages of the neighbours in the same frame."""
    sums, counts = torch.zeros_like(values), torch.zeros_like(values)
    _collect(sums, counts, values, links, back=False)
    _collect(sums, counts, values, links, back=True)
    return _damped(sums, counts, 2 * len(links))


def _chain_message(values: Tensor, links: list[_Link]) -> Tensor:
    """Messages of the frames before and after each frame."""
    sums, counts = torch.zeros_like(values), torch.zeros_like(values)
    _collect(sums[:-1], counts[:-1], values[1:], links, back=False)
    _collect(sums[1:], counts[1:], values[:-1], links, back=True)
    return _damped(sums, counts, 2 * len(links))


def _damped(sums: Tensor, counts: Tensor, number: int) -> Tensor:
    return sums / (counts + _EPS) * (counts / number).sqrt()
