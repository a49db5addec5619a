"""Colour similarity of cells, within a frame and between frames: once per step for all objects.

Ke et al., "Mask-Free Video Instance Segmentation", CVPR 2023 (arXiv:2303.15904), sec. 3.2 and 3.3.
Shape letters: B clips, T frames, E frame pairs, R search positions, (h, w) map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskfreevis_ext.ops.neighbors import Offset, grid_offsets, half_offsets
from maskfreevis_ext.ops.similarity import (
    frame_pairs,
    lab_map,
    nearest_matches,
    outside_edges,
    patch_distances,
    spatial_edges,
    valid_cells,
)

_PAIRS_AT_ONCE = 16  # frame pairs whose distances are in memory at a time (4x the matches)


@dataclass(frozen=True)
class AffinitySettings:
    """The keys of ``MODEL.MASKFREE`` for colour edges and patch matches; see docs/config.md."""

    lab_bgr: bool = False
    lab_quantize: bool = False
    match_outside: bool = False
    pairwise_dilation: int = 2
    pairwise_threshold: float = 0.3
    temporal_pairs: str = "all"
    patch_size: int = 3
    search_radius: int = 1
    search_dilation: int = 3
    top_k: int = 5
    temporal_threshold: float = 0.05

    @property
    def edge_offsets(self) -> list[Offset]:
        """Neighbours (dy, dx) of the spatial term, in cells; of two opposite ones only one."""
        return half_offsets(1, self.pairwise_dilation)

    @property
    def search_offsets(self) -> list[Offset]:
        """Search positions of the temporal term, in cells."""
        return grid_offsets(self.search_radius, self.search_dilation, with_center=True)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Arguments of the class, from ``MODEL.MASKFREE`` and ``INPUT.FORMAT``."""
        node = cfg.MODEL.MASKFREE
        return {
            "lab_bgr": (cfg.INPUT.FORMAT == "BGR") != (node.LAB_CHANNEL_ORDER == "reversed"),
            "lab_quantize": node.LAB_QUANTIZE,
            "match_outside": node.MATCH_OUTSIDE,
            "pairwise_dilation": node.PAIRWISE.DILATION,
            "pairwise_threshold": node.PAIRWISE.THRESHOLD,
            "temporal_pairs": node.TEMPORAL.PAIRS,
            "patch_size": node.TEMPORAL.PATCH_SIZE,
            "search_radius": node.TEMPORAL.SEARCH_RADIUS,
            "search_dilation": node.TEMPORAL.SEARCH_DILATION,
            "top_k": node.TEMPORAL.TOP_K,
            "temporal_threshold": node.TEMPORAL.THRESHOLD,
        }


@dataclass(frozen=True)
class Affinities:
    """Pairs of cells with similar colour, and matches of patches between frames.

    Attributes:
        edges: For each of ``edge_offsets``, whether a cell and its neighbour at that offset have
            similar colours, bool, (B, T, h', w'): the part of the map where both exist.
        edge_offsets: Offsets of the neighbours.
        outside: Number of neighbours beyond the map that count as similar, (B, T, h, w); None:
            neighbours beyond the map never count.
        matches: At cell p, whether cell p + offset of the earlier frame matches cell p of the later
            frame, (B, E, R, h, w), bool.
        search_offsets: The R offsets of ``matches``.
        pairs: The E frame pairs (earlier, later) of ``matches``.
    """

    edges: list[Tensor]
    edge_offsets: list[Offset]
    outside: Tensor | None
    matches: Tensor
    search_offsets: list[Offset]
    pairs: list[tuple[int, int]]


@torch.no_grad()
def compute_affinities(
    frames: Tensor, frame_sizes: Sequence[tuple[int, int]], stride: int, settings: AffinitySettings
) -> Affinities:
    """Colour edges of every frame and patch matches of every frame pair.

    Args:
        frames: Pixel values in [0, 255] with zeros as padding, (B, T, 3, H, W), float32.
        frame_sizes: (height, width) of each clip without its padding.
        stride: Pixels per cell of the masks.
        settings: Thresholds and windows.

    Example:
        >>> frames = torch.zeros(1, 2, 3, 16, 16)  # one colour: everything looks alike
        >>> found = compute_affinities(frames, [(16, 16)], 4, AffinitySettings())
        >>> found.pairs, tuple(found.matches.shape), bool(found.edges[0].all())
        ([(0, 1)], (1, 1, 9, 4, 4), True)
    """
    lab = lab_map(frames, stride, bgr=settings.lab_bgr, quantize=settings.lab_quantize)
    valid = None
    if not settings.match_outside:
        valid = valid_cells(frame_sizes, (lab.shape[-2], lab.shape[-1]), stride, lab.device)
    dilation, threshold = settings.pairwise_dilation, settings.pairwise_threshold
    edges = spatial_edges(lab, settings.edge_offsets, threshold, valid)
    outside = None
    if settings.match_outside:
        outside = outside_edges(lab, grid_offsets(1, dilation, with_center=False), threshold)
    pairs = frame_pairs(settings.temporal_pairs, frames.shape[1])
    offsets = settings.search_offsets
    planes = []
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        some = pairs[start : start + _PAIRS_AT_ONCE]
        distances = patch_distances(lab, some, offsets, settings.patch_size, valid)
        planes.append(nearest_matches(distances, settings.top_k, settings.temporal_threshold))
    if not planes:
        shape = (lab.shape[0], 0, len(offsets), *lab.shape[-2:])
        planes.append(torch.zeros(shape, dtype=torch.bool, device=lab.device))
    matches = torch.cat(planes, dim=1) if len(planes) > 1 else planes[0]
    return Affinities(edges, settings.edge_offsets, outside, matches, offsets, pairs)
