"""Does what a mask leaves out of its box look like the background outside the box?

Where it does not, the mask is a part of the object: a car without its windows, a dancer without the
trousers. N objects, T frames, S x S cells, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FEWEST = 30  # cells of each kind that a comparison needs
_NUM_REJECTED = 600  # cells that are compared ...
_NUM_KNOWN = 1500  # ... with so many of the mask and of the background
_NEIGHBOURS = 5


def background_share(
    values: Tensor,
    probabilities: Tensor,
    inside: Tensor,
    in_frame: Tensor,
    generator: torch.Generator,
) -> float | None:
    """Share of the cells left out of the box that look more like the background than like the mask.

    A cell looks like the set whose five nearest neighbours in feature space are nearer on average.

    Args:
        values: Features of one object, (T, D, S, S).
        probabilities: (T, S, S); the mask is what is above 0.5 in the box.
        inside: Share of each cell that the box covers, (T, S, S).
        in_frame: (T, S, S) bool.
        generator: Source of the samples.

    Returns:
        In [0, 1]; None where there are too few cells of one kind to tell.
    """
    in_box = (inside > 0.5) & in_frame
    is_mask = (probabilities > 0.5) & in_box
    outside = (inside < 0.01) & in_frame
    cells = values.permute(0, 2, 3, 1)
    kinds = (in_box & ~is_mask, is_mask, outside)
    if min(int(kind.sum()) for kind in kinds) < _FEWEST:
        return None
    numbers = (_NUM_REJECTED, _NUM_KNOWN, _NUM_KNOWN)
    rejected, mask, background = (
        _sample(cells[kind], number, generator).float()
        for kind, number in zip(kinds, numbers, strict=True)
    )
    is_background = _distance(rejected, background) < _distance(rejected, mask)
    return float(is_background.float().mean())


def _sample(rows: Tensor, number: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:number]]


def _distance(points: Tensor, others: Tensor) -> Tensor:
    """Mean distance of each point to its nearest neighbours among the others."""
    nearest = torch.cdist(points, others).topk(_NEIGHBOURS, dim=1, largest=False)
    return nearest.values.mean(1)
