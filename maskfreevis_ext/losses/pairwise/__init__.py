"""The pairwise terms: cells that look alike have the same label, in one frame or in two.

Three forms give the same values: ``dense`` (whole maps, never waits for a GPU), ``listed`` (lists
of the few pairs that count, fastest on the CPU) and ``triton`` (fused GPU kernels). This module
chooses between them, and nobody else does.
"""

from __future__ import annotations

from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from maskfreevis_ext.losses.pairwise import dense, listed, triton
from maskfreevis_ext.losses.scene import BoxObjects


class Pairs(Protocol):
    """Pairs of cells of the objects of a batch, in n groups that are normalized by themselves.

    Shape letters: K decoder outputs, N objects.
    """

    def counts(self, is_matched: Tensor) -> Tensor:
        """Weight of the pairs of the objects that have a query (K, N), by group, (K, n)."""

    def sums(self, mask_logits: Tensor, is_matched: Tensor, normalizers: Tensor) -> Tensor:
        """Sum of -log P(same label) over the pairs, each group divided by its normalizer, (K,).

        Args:
            mask_logits: (K, N, T, h, w).
            is_matched: Objects that count, (K, N), float.
            normalizers: (K, n).
        """

    def by_object(self, mask_logits: Tensor, normalizers: Tensor) -> Tensor:
        """``sums`` of each object by itself, (K, N), without a gradient."""


def spatial_pairs(objects: BoxObjects) -> Pairs:
    """Neighbours of similar colour inside the boxes of the objects; one group."""
    if _use_lists(objects):
        return listed.spatial_pairs(objects)
    return dense.spatial_pairs(objects, _maps(objects.boxes.device).spatial_pairwise_sums)


def temporal_pairs(objects: BoxObjects) -> Pairs:
    """Matches between frames inside the boxes of the objects; one group for each frame pair."""
    if _use_lists(objects):
        return listed.temporal_pairs(objects)
    return dense.temporal_pairs(objects, _maps(objects.boxes.device).temporal_pairwise_sums)


def _use_lists(objects: BoxObjects) -> bool:
    """Whether lists can be used: their length is known for free on the CPU only.

    A list serves all decoder outputs, so every object must have a query at each of them.
    """
    return objects.boxes.device.type == "cpu" and objects.all_matched


def _maps(device: torch.device) -> ModuleType:
    """The form that goes through whole maps on a device."""
    return triton if triton.is_available(device) else dense
