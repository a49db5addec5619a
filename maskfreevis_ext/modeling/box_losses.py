"""The losses of objects that have boxes and no masks, for all decoder outputs together.

Ke et al., "Mask-Free Video Instance Segmentation", CVPR 2023 (arXiv:2303.15904).
Shape letters: K decoder outputs, N objects of all box-supervised clips, E frame pairs, (h, w) map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.losses import fused, pairwise
from maskfreevis_ext.losses.listed import (
    CellPairs,
    listed_pairwise_sums,
    listed_sums_by_object,
)
from maskfreevis_ext.losses.projection import projection_loss
from maskfreevis_ext.ops.boxes import box_profiles, mask_projections, masks_to_boxes
from maskfreevis_ext.ops.neighbors import Offset, grid_offsets, half_offsets, pair_slices
from maskfreevis_ext.ops.reduce import mean_over_ranks
from maskfreevis_ext.ops.similarity import (
    frame_pairs,
    lab_map,
    nearest_matches,
    outside_edges,
    patch_distances,
    spatial_edges,
    valid_cells,
)

_PAIRS_AT_ONCE = 16  # frame pairs whose distances are held at a time; matches are 4x smaller


@dataclass(frozen=True)
class BoxLossSettings:
    """The keys of ``MODEL.MASKFREE`` that the box losses read; see config.py for their meaning."""

    lab_bgr: bool = False
    lab_quantize: bool = False
    match_outside: bool = False
    empty_frame_weight: float = 1.0
    pairwise_dilation: int = 2
    pairwise_threshold: float = 0.3
    pairwise_warmup: int = 0
    temporal_pairs: str = "all"
    temporal_scale: float = 0.1
    temporal_norm_pairs: int = 3
    patch_size: int = 3
    search_radius: int = 1
    search_dilation: int = 3
    top_k: int = 5
    temporal_threshold: float = 0.05
    temporal_warmup: int = 200

    @property
    def search_offsets(self) -> list[Offset]:
        """Search positions of the temporal term, in cells."""
        return grid_offsets(self.search_radius, self.search_dilation, with_center=True)

    @classmethod
    def from_config(cls, cfg: Any) -> BoxLossSettings:
        """Read the config.

        Raises:
            ConfigError: A value is outside its range; names the key.
        """
        node = cfg.MODEL.MASKFREE
        if node.LAB_CHANNEL_ORDER not in ("correct", "reversed"):
            raise ConfigError(
                "MODEL.MASKFREE.LAB_CHANNEL_ORDER is 'correct' or 'reversed', "
                f"got {node.LAB_CHANNEL_ORDER!r}"
            )
        try:
            frame_pairs(node.TEMPORAL.PAIRS, 2)
        except ValueError as error:
            raise ConfigError(f"MODEL.MASKFREE.TEMPORAL.PAIRS: {error}") from error
        for key, value in (("PAIRWISE", node.PAIRWISE), ("TEMPORAL", node.TEMPORAL)):
            if not 0 < value.THRESHOLD <= 1:
                raise ConfigError(
                    f"MODEL.MASKFREE.{key}.THRESHOLD lies in (0, 1], got {value.THRESHOLD}"
                )
        if node.TEMPORAL.PATCH_SIZE % 2 == 0 or node.TEMPORAL.TOP_K < 1:
            raise ConfigError(
                "MODEL.MASKFREE.TEMPORAL.PATCH_SIZE is odd and TOP_K at least 1, "
                f"got {node.TEMPORAL.PATCH_SIZE} and {node.TEMPORAL.TOP_K}"
            )
        return cls(
            lab_bgr=(cfg.INPUT.FORMAT == "BGR") != (node.LAB_CHANNEL_ORDER == "reversed"),
            lab_quantize=node.LAB_QUANTIZE,
            match_outside=node.MATCH_OUTSIDE,
            empty_frame_weight=node.PROJECTION.EMPTY_FRAME_WEIGHT,
            pairwise_dilation=node.PAIRWISE.DILATION,
            pairwise_threshold=node.PAIRWISE.THRESHOLD,
            pairwise_warmup=node.PAIRWISE.WARMUP_ITERS,
            temporal_pairs=node.TEMPORAL.PAIRS,
            temporal_scale=node.TEMPORAL.SCALE,
            temporal_norm_pairs=node.TEMPORAL.NORM_PAIRS,
            patch_size=node.TEMPORAL.PATCH_SIZE,
            search_radius=node.TEMPORAL.SEARCH_RADIUS,
            search_dilation=node.TEMPORAL.SEARCH_DILATION,
            top_k=node.TEMPORAL.TOP_K,
            temporal_threshold=node.TEMPORAL.THRESHOLD,
            temporal_warmup=node.TEMPORAL.WARMUP_ITERS,
        )


@dataclass(frozen=True)
class Affinities:
    """What looks alike in a batch; made once a step, for all layers and objects.

    ``edges``: for each half offset (B, T, h', w') bool. ``outside``: (B, T, h, w) or None.
    ``matches``: (B, E, R, h, w) bool. ``pairs``: E frame pairs.
    """

    edges: list[Tensor]
    outside: Tensor | None
    matches: Tensor
    pairs: list[tuple[int, int]]


@torch.no_grad()
def compute_affinities(
    frames: Tensor, frame_sizes: Sequence[tuple[int, int]], stride: int, settings: BoxLossSettings
) -> Affinities:
    """Colour edges of every frame and patch matches of every frame pair.

    Args:
        frames: Pixel values in [0, 255] with zeros as padding, (B, T, 3, H, W), float32.
        frame_sizes: (height, width) of each clip without its padding.
        stride: Pixels per cell of the masks.
        settings: Thresholds and windows.
    """
    lab = lab_map(frames, stride, bgr=settings.lab_bgr, quantize=settings.lab_quantize)
    valid = None
    if not settings.match_outside:
        valid = valid_cells(frame_sizes, lab.shape[-2:], stride, lab.device)
    dilation, threshold = settings.pairwise_dilation, settings.pairwise_threshold
    edges = spatial_edges(lab, half_offsets(1, dilation), threshold, valid)
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
    return Affinities(edges, outside, matches, pairs)


def warmup_factor(iteration: Tensor, warmup_iters: int) -> Tensor | float:
    """Linear from 0 to 1 over ``warmup_iters`` steps; ``iteration`` counts from 1."""
    return 1.0 if warmup_iters <= 0 else (iteration / warmup_iters).clamp(max=1.0)


def _temporal_factor(
    iteration: Tensor, affinities: Affinities, settings: BoxLossSettings
) -> Tensor | float:
    """What the sum over frame pairs is multiplied by."""
    factor = settings.temporal_scale * warmup_factor(iteration, settings.temporal_warmup)
    if settings.temporal_norm_pairs and affinities.pairs:
        factor = factor * (settings.temporal_norm_pairs / len(affinities.pairs))
    return factor


def no_box_losses(mask_logits: Tensor, settings: BoxLossSettings) -> dict[str, Tensor]:
    """What ``box_losses`` gives without objects: zeros with a gradient path.

    Args:
        mask_logits: (K, 0, T, h, w).
        settings: Those of ``box_losses``.
    """
    _join_normalizers(mask_logits, len(mask_logits), settings)
    zero = mask_logits.flatten(1).sum(1)
    return {"loss_mask_proj": zero, "loss_bound": zero, "loss_bound_neighbor": zero}


def box_losses(
    mask_logits: Tensor,
    is_matched: Tensor,
    boxes: Tensor,
    clips: Tensor,
    affinities: Affinities,
    stride: int,
    iteration: Tensor,
    settings: BoxLossSettings,
) -> dict[str, Tensor]:
    """Projection, spatial and temporal loss of every decoder output.

    Args:
        mask_logits: Logits of the query matched with each object, (K, N, T, h, w).
        is_matched: Whether there is one, (K, N), float.
        boxes: (N, T, 4), xyxy pixels, zeros where the object is absent.
        clips: Index of each object's clip in ``affinities``, (N,), int64.
        affinities: Edges and matches.
        stride: Pixels per cell.
        iteration: Steps done, this one included, for the warm-up; (1,).
        settings: Weights and windows.

    Returns:
        ``loss_mask_proj``, ``loss_bound``, ``loss_bound_neighbor``, each (K,), not weighted.
    """
    rows, cols = box_profiles(boxes, mask_logits.shape[-2:], stride)
    per_frame = projection_loss(
        *mask_projections(mask_logits), rows, cols, settings.empty_frame_weight
    )
    projection = (per_frame.sum(-1) * is_matched).sum(-1)
    num_frames = is_matched.sum(-1) * mask_logits.shape[2]
    # The length of a list has to be known on the host, which is free on the CPU only.
    in_lists = mask_logits.device.type == "cpu" and bool((is_matched == 1).all())
    pairwise_terms = _pairwise_listed if in_lists else _pairwise_dense
    box_maps = rows[..., :, None] * cols[..., None, :]  # (N, T, h, w)
    spatial, temporal, projection_normalizer = pairwise_terms(
        mask_logits, is_matched, box_maps, clips, affinities, num_frames, settings
    )
    return {
        "loss_mask_proj": projection / projection_normalizer,
        "loss_bound": spatial * warmup_factor(iteration, settings.pairwise_warmup),
        "loss_bound_neighbor": temporal * _temporal_factor(iteration, affinities, settings),
    }


@torch.no_grad()
def box_costs(
    mask_logits: Tensor,
    boxes: Tensor,
    clips: Tensor,
    affinities: Affinities,
    stride: int,
    iteration: Tensor,
    settings: BoxLossSettings,
    weights: dict[str, float],
) -> Tensor:
    """What each of several masks of an object would add to the weighted sum of ``box_losses``.

    Args:
        mask_logits: (K, N, T, h, w), K decoder outputs times hypotheses.
        boxes: (N, T, 4), as for ``box_losses``, like all that follows.
        clips: (N,).
        affinities: Edges and matches.
        stride: Pixels per cell.
        iteration: (1,).
        settings: Weights and windows.
        weights: Weight of each of the three terms.

    Returns:
        (K, N). Normalised over all ranks, each of which calls this or ``no_box_costs``.
    """
    rows, cols = box_profiles(boxes, mask_logits.shape[-2:], stride)
    projection = projection_loss(
        *mask_projections(mask_logits), rows, cols, settings.empty_frame_weight
    ).sum(-1)
    box_maps = rows[..., :, None] * cols[..., None, :]
    by_object = _costs_listed if mask_logits.device.type == "cpu" else _costs_dense
    spatial, temporal, num_frames = by_object(mask_logits, box_maps, clips, affinities, settings)
    factor = _temporal_factor(iteration, affinities, settings)
    return (
        weights["loss_mask_proj"] * projection / num_frames
        + weights["loss_bound"] * spatial * warmup_factor(iteration, settings.pairwise_warmup)
        + weights["loss_bound_neighbor"] * temporal * factor
    )


def _costs_dense(
    mask_logits: Tensor,
    box_maps: Tensor,
    clips: Tensor,
    affinities: Affinities,
    settings: BoxLossSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised terms on whole maps, (K, N) each, and the normaliser of the projection."""
    spatial, spatial_weight, temporal, temporal_weight = _dense_sums(
        mask_logits, box_maps, clips, affinities, settings
    )
    normalizers = _normalizers(
        _frames_of_all(box_maps), spatial_weight.sum().view(1), temporal_weight.sum(0)[None]
    )[0]
    temporal = (temporal / normalizers[2:]).sum(-1)
    return spatial / normalizers[1], temporal, normalizers[0]


def _costs_listed(
    mask_logits: Tensor,
    box_maps: Tensor,
    clips: Tensor,
    affinities: Affinities,
    settings: BoxLossSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """``_costs_dense`` over lists of the pairs that count."""
    lists, normalizers = _normalized_lists(
        box_maps, clips, affinities, _frames_of_all(box_maps), settings
    )
    sums = listed_sums_by_object(mask_logits, lists)
    return sums[0], sums[1], normalizers[0, 0]


def _frames_of_all(box_maps: Tensor) -> Tensor:
    """Frames of the objects of one output that has a query for each, (1,)."""
    return box_maps.new_full((1,), float(box_maps.shape[0] * box_maps.shape[1]))


def no_box_costs(mask_logits: Tensor, settings: BoxLossSettings) -> None:
    """Take part in the reduction of ``box_costs`` without objects.

    Args:
        mask_logits: (..., T, h, w).
        settings: Those of ``box_costs``.
    """
    _join_normalizers(mask_logits, 1, settings)


def _join_normalizers(mask_logits: Tensor, num_outputs: int, settings: BoxLossSettings) -> None:
    """Take part in ``_normalizers`` with nothing, as ranks that have objects wait for this one."""
    num_pairs = len(frame_pairs(settings.temporal_pairs, mask_logits.shape[-3]))
    mean_over_ranks(mask_logits.new_zeros(num_outputs, 2 + num_pairs))


def _normalizers(num_frames: Tensor, spatial: Tensor, temporal: Tensor) -> Tensor:
    """Normalisers of the three terms, shared by all ranks, at least 1.

    Args:
        num_frames: Frames of matched objects, (K,).
        spatial: Weight of the spatial term, (K,).
        temporal: Weight of each frame pair, (K, E).

    Returns:
        (K, 2 + E).
    """
    own = torch.cat([num_frames[:, None], spatial[:, None], temporal], dim=1)
    return mean_over_ranks(own).clamp(min=1)


def _pairwise_dense(
    mask_logits: Tensor,
    is_matched: Tensor,
    box_maps: Tensor,
    clips: Tensor,
    affinities: Affinities,
    num_frames: Tensor,
    settings: BoxLossSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairwise terms on whole maps, without waiting for the device.

    Args:
        mask_logits: (K, N, T, h, w).
        is_matched: (K, N), float.
        box_maps: Filled boxes, (N, T, h, w), values in [0, 1].
        clips: (N,).
        affinities: Edges and matches.
        num_frames: Frames of matched objects, (K,).
        settings: Neighbourhoods.

    Returns:
        Normalised spatial and temporal term and the normaliser of the projection, each (K,).
    """
    spatial, spatial_weight, temporal, temporal_weight = _dense_sums(
        mask_logits, box_maps, clips, affinities, settings
    )

    def total(values: Tensor) -> Tensor:
        """Sum over the objects that are matched, (K, N) or (K, N, E) -> (K,) or (K, E)."""
        weight = is_matched[..., None] if values.ndim == 3 else is_matched
        return (values * weight).sum(1)

    normalizers = _normalizers(
        num_frames,
        total(spatial_weight.expand_as(is_matched)),
        total(temporal_weight.expand(len(is_matched), -1, -1)),
    )
    return (
        total(spatial) / normalizers[:, 1],
        (total(temporal) / normalizers[:, 2:]).sum(-1),
        normalizers[:, 0],
    )


def _dense_sums(
    mask_logits: Tensor,
    box_maps: Tensor,
    clips: Tensor,
    affinities: Affinities,
    settings: BoxLossSettings,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums and weights of each object on whole maps.

    Returns:
        Spatial sum (K, N) and weight (N,), temporal sum (K, N, E) and weight (N, E).
    """
    sums = fused if fused.is_available(mask_logits.device) else pairwise
    edges = [edge[clips] for edge in affinities.edges]
    spatial, spatial_weight = sums.spatial_pairwise_sums(
        mask_logits, edges, half_offsets(1, settings.pairwise_dilation), box_maps
    )
    if affinities.outside is not None:
        spatial_weight = spatial_weight + (affinities.outside[clips] * box_maps).sum((1, 2, 3))
    regions = (box_maps.sum(1) >= 1).to(box_maps.dtype)  # union of the clip's boxes
    temporal, temporal_weight = sums.temporal_pairwise_sums(
        mask_logits, affinities.matches[clips], affinities.pairs, settings.search_offsets, regions
    )
    return spatial, spatial_weight, temporal, temporal_weight


def _pairwise_listed(
    mask_logits: Tensor,
    is_matched: Tensor,
    box_maps: Tensor,
    clips: Tensor,
    affinities: Affinities,
    num_frames: Tensor,
    settings: BoxLossSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """``_pairwise_dense`` over lists of the pairs that count; every object is matched."""
    lists, normalizers = _normalized_lists(box_maps, clips, affinities, num_frames, settings)
    sums = listed_pairwise_sums(mask_logits, lists)
    return sums[0], sums[1], normalizers[:, 0]


def _normalized_lists(
    box_maps: Tensor,
    clips: Tensor,
    affinities: Affinities,
    num_frames: Tensor,
    settings: BoxLossSettings,
) -> tuple[list[CellPairs], Tensor]:
    """Spatial and temporal pairs, their weights divided by their normalisers.

    Returns:
        The two lists, and the normalisers (K, 2 + E) for ``num_frames`` (K,).
    """
    spatial = _spatial_list(affinities.edges, clips, box_maps, settings)
    spatial_weight = spatial.weight.sum()
    if affinities.outside is not None:
        spatial_weight = spatial_weight + (affinities.outside[clips] * box_maps).sum()
    temporal, pair_of, temporal_weight = _temporal_list(affinities, clips, box_maps, settings)
    normalizers = _normalizers(
        num_frames,
        spatial_weight.expand_as(num_frames),
        temporal_weight.expand(len(num_frames), -1),
    )
    spatial.weight.div_(normalizers[0, 1])
    temporal.weight.div_(normalizers[0, 2:].index_select(0, pair_of))
    return [spatial, temporal], normalizers


def _spatial_list(
    edges: Sequence[Tensor], clips: Tensor, box_maps: Tensor, settings: BoxLossSettings
) -> CellPairs:
    """Edges inside boxes, with the sum of the box maps at both ends; ``box_maps`` (N, T, h, w)."""
    cells = torch.arange(box_maps.numel(), device=box_maps.device).view_as(box_maps)
    in_box = box_maps > 0
    width = box_maps.shape[-1]
    first, second = [], []
    for offset, edge in zip(half_offsets(1, settings.pairwise_dilation), edges, strict=True):
        here, there = pair_slices(offset, *box_maps.shape[-2:])
        counts = (in_box[(..., *here)] | in_box[(..., *there)]).logical_and_(edge[clips])
        first.append(cells[(..., *here)].masked_select(counts))
        second.append(first[-1] + (offset[0] * width + offset[1]))
    starts, ends = torch.cat(first), torch.cat(second)
    boxes = box_maps.flatten()
    weight = boxes.index_select(0, starts).add_(boxes.index_select(0, ends))
    return CellPairs(starts, ends, weight)


def _temporal_list(
    affinities: Affinities, clips: Tensor, box_maps: Tensor, settings: BoxLossSettings
) -> tuple[CellPairs, Tensor, Tensor]:
    """Matches inside the union of an object's boxes.

    Returns:
        Pairs with weight 1, the frame pair of each (P,), and the number of matches of each frame
        pair (E,), with those whose other cell is outside the map: they count, and have no loss.
    """
    map_size = box_maps.shape[-2:]
    region = box_maps.sum(1) >= 1
    planes = affinities.matches.shape[1:3]  # (E, R)
    cells = torch.arange(map_size.numel(), device=region.device).view(map_size)
    starts = torch.arange(planes.numel(), device=region.device).view(*planes, 1, 1)
    starts = starts * map_size.numel()
    chosen = []
    for index, (x0, y0, x1, y1) in enumerate(masks_to_boxes(region).long().tolist()):
        window = (..., slice(y0, y1), slice(x0, x1))
        counts = affinities.matches[clips[index]][window] & region[index][window]
        flat = starts + (cells[window] + index * planes.numel() * map_size.numel())
        chosen.append(flat.masked_select(counts))
    chosen = torch.cat(chosen)  # flat indices in (N, E, R, h, w)
    plane = chosen.div(map_size.numel(), rounding_mode="floor")
    first, second, pair = (
        table.index_select(0, plane)
        for table in _plane_tables(affinities.pairs, settings.search_offsets, box_maps)
    )
    weight = torch.bincount(pair, minlength=len(affinities.pairs)).to(box_maps.dtype)
    first += chosen
    second += chosen
    if affinities.outside is not None:
        inside = _inside(settings.search_offsets, map_size, region.device).flatten()
        keep = inside[chosen % len(inside)]
        first, second, pair = first[keep], second[keep], pair[keep]
    return CellPairs(first, second, torch.ones_like(first, dtype=weight.dtype)), pair, weight


def _plane_tables(
    pairs: Sequence[tuple[int, int]], offsets: Sequence[Offset], box_maps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """For each plane of (N, E, R, h, w): how to come from its cells to those of (N, T, h, w).

    Returns:
        What to add to a flat index for that of the cell in the later frame of the pair and of its
        match in the earlier one, and the frame pair; each (N * E * R,), int64.
    """
    num_objects, num_frames, height, width = box_maps.shape
    frames = torch.tensor(pairs, dtype=torch.int64).view(-1, 1, 2)
    shift = torch.tensor([dy * width + dx for dy, dx in offsets])
    shape = num_objects, len(pairs), len(offsets)
    objects = torch.arange(num_objects).view(-1, 1, 1) * num_frames
    base = objects - torch.arange(math.prod(shape)).view(shape)
    first = (base + frames[..., 1]) * (height * width)
    second = (base + frames[..., 0]) * (height * width) + shift
    pair = torch.arange(len(pairs)).view(-1, 1).expand(shape)
    return tuple(table.flatten().to(box_maps.device) for table in (first, second, pair))


def _inside(offsets: Sequence[Offset], map_size: tuple[int, int], device: torch.device) -> Tensor:
    """Cells whose neighbour at each offset is on the map, (R, h, w), bool."""
    inside = torch.zeros(len(offsets), *map_size, dtype=torch.bool, device=device)
    for of_offset, offset in zip(inside, offsets, strict=True):
        of_offset[pair_slices(offset, *map_size)[0]] = True
    return inside
