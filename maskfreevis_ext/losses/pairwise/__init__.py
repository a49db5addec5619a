"""Pairwise losses: two cells of similar colour have the same label, in one frame or in two.

Three implementations give the same values: ``dense`` (whole maps; never waits for a GPU),
``listed`` (lists of the few pairs with a weight; fastest on the CPU) and ``triton`` (fused GPU
kernels). Only this module chooses between them.
"""

from __future__ import annotations

from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from maskfreevis_ext.losses.pairwise import dense, listed, triton
from maskfreevis_ext.losses.scene import BoxObjects


class Pairs(Protocol):
    """Weighted pairs of cells of the objects of a batch, in n separately normalized groups.

    Shape letters: K decoder outputs, N objects.
    """

    def counts(self, is_matched: Tensor) -> Tensor:
        """Total weight of the pairs of the matched objects in each group, (K, n)."""

    def sums(self, mask_logits: Tensor, is_matched: Tensor, normalizers: Tensor) -> Tensor:
        """Sum of -log P(same label) over the pairs, each group divided by its normalizer, (K,).

        Args:
            mask_logits: (K, N, T, h, w).
            is_matched: Objects that count, (K, N), float.
            normalizers: (K, n).
        """

    def by_object(self, mask_logits: Tensor, normalizers: Tensor) -> Tensor:
        """``sums`` for each object separately, (K, N), without a gradient."""


def spatial_pairs(objects: BoxObjects) -> Pairs:
    """Pairs of neighbours with similar colour inside the boxes of the objects, in one group."""
    if _use_lists(objects):
        return listed.spatial_pairs(objects)
    return dense.spatial_pairs(objects, _maps(objects.boxes.device).spatial_pairwise_sums)


def temporal_pairs(objects: BoxObjects) -> Pairs:
    """Matches between frames inside the boxes of the objects, one group for each frame pair."""
    if _use_lists(objects):
        return listed.temporal_pairs(objects)
    return dense.temporal_pairs(objects, _maps(objects.boxes.device).temporal_pairwise_sums)


def _use_lists(objects: BoxObjects) -> bool:
    """Whether ``listed`` can be used.

    On a GPU its lists would need a synchronisation, as their length depends on the data. One list
    serves all decoder outputs, so every object must have a query at each of them.
    """
    return objects.boxes.device.type == "cpu" and objects.all_matched


def _maps(device: torch.device) -> ModuleType:
    """The implementation that works on whole maps on a device: ``triton`` or ``dense``."""
    return triton if triton.is_available(device) else dense
