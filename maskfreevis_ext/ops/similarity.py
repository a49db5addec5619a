"""Colour similarity from Lab colours: edges within a frame and matches between frames.

Both are independent of predictions, so they are computed once per step for all frames of a batch.
Ke et al., "Mask-Free Video Instance Segmentation", CVPR 2023 (arXiv:2303.15904), sec. 3.2; colour
edges as in BoxInst (arXiv:2012.02310). The similarity exp(-d / 2) of a distance d is at least s if
and only if d^2 <= (2 ln s)^2, so neither exp nor a square root is computed.

Shape letters: E frame pairs, R search positions, (h, w) map at the stride of the masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .color import rgb_to_lab
from .neighbors import Offset, pair_slices
from .reduce import send


def lab_map(frames: Tensor, stride: int = 4, bgr: bool = False, quantize: bool = False) -> Tensor:
    """Lab colours of frames, averaged over stride x stride pixels.

    Args:
        frames: Pixel values in [0, 255], (..., 3, H, W), floating point.
        stride: Pixels per cell; H and W are multiples of it.
        bgr: The channels are blue, green, red.
        quantize: Round the averaged colour down to whole numbers, as the reference does.

    Returns:
        (..., 3, H / stride, W / stride), dtype of the input.

    Raises:
        ValueError: H or W is not a multiple of ``stride``, or ``frames`` are not floating point
            with three channels.

    Example:
        >>> frames = torch.full((1, 2, 3, 8, 12), 255.0)  # one clip of two white frames
        >>> lab_map(frames, stride=4).shape
        torch.Size([1, 2, 3, 2, 3])
    """
    height, width = frames.shape[-2:]
    if height % stride or width % stride:
        raise ValueError(f"({height}, {width}) is not a multiple of the stride {stride}")
    color = F.avg_pool2d(frames.flatten(0, -4), stride).unflatten(0, frames.shape[:-3])
    if quantize:
        color = color.floor()
    return rgb_to_lab(color.flip(-3) if bgr else color)


def valid_cells(
    frame_sizes: Sequence[tuple[int, int]],
    map_size: tuple[int, int],
    stride: int,
    device: torch.device,
) -> Tensor:
    """Cells of which every pixel belongs to the frame and none to its padding.

    Args:
        frame_sizes: (height, width) in pixels of the frames of each of B videos.
        map_size: (h, w).
        stride: Pixels per cell.
        device: Device of the result.

    Returns:
        (B, h, w), bool.

    Example:
        >>> cells = valid_cells([(4, 10)], map_size=(2, 3), stride=4, device=torch.device("cpu"))
        >>> cells.int().tolist()
        [[[1, 1, 0], [0, 0, 0]]]
    """
    ends = send(torch.tensor(frame_sizes), device).div(stride, rounding_mode="floor")
    rows = torch.arange(map_size[0], device=device) < ends[:, :1]
    cols = torch.arange(map_size[1], device=device) < ends[:, 1:]
    return rows[:, :, None] & cols[:, None, :]


def max_squared_distance(threshold: float) -> float:
    """The d^2 for which exp(-d / 2) equals a similarity threshold.

    Args:
        threshold: In (0, 1].

    Raises:
        ValueError: ``threshold`` is outside (0, 1].

    Example:
        >>> round(max_squared_distance(0.3), 3)
        5.798
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a similarity threshold lies in (0, 1], got {threshold}")
    return (2 * math.log(threshold)) ** 2


def spatial_edges(
    lab: Tensor, offsets: Sequence[Offset], threshold: float, valid: Tensor | None = None
) -> list[Tensor]:
    """Pairs of cells of one frame with similar colour.

    Args:
        lab: (B, T, 3, h, w).
        offsets: O offsets (dy, dx).
        threshold: Least similarity exp(-0.5 * ||Lab(p) - Lab(q)||) of an edge, in (0, 1].
        valid: Cells that may have edges, (B, h, w), bool; None: all.

    Returns:
        For each offset a bool tensor (B, T, h', w') over the window in which both cells exist
        (``neighbors.pair_slices``), True where the pair is an edge.

    Raises:
        ValueError: ``threshold`` is outside (0, 1].

    Example:
        >>> lab = torch.tensor([50.0, 51.0, 90.0]).expand(1, 1, 3, 1, 3)  # one row of three greys
        >>> spatial_edges(lab, [(0, 1)], threshold=0.3)
        [tensor([[[[ True, False]]]])]
    """
    height, width = lab.shape[-2:]
    limit = max_squared_distance(threshold)
    edges = []
    for offset in offsets:
        here, there = pair_slices(offset, height, width)
        difference = lab[(..., *here)] - lab[(..., *there)]
        edge = difference.square_().sum(2) <= limit
        if valid is not None:
            edge &= (valid[(..., *here)] & valid[(..., *there)])[:, None]
        edges.append(edge)
    return edges


def outside_edges(lab: Tensor, offsets: Sequence[Offset], threshold: float) -> Tensor:
    """Number of neighbours outside the map that are similar if the map is padded with zeros.

    The reference pads Lab with zeros (black), so that a dark cell at the border has similar
    "neighbours" outside. They add nothing to the loss, but they count in its normaliser.

    Args:
        lab: (B, T, 3, h, w).
        offsets: All O offsets of the neighbourhood (both signs).
        threshold: As in ``spatial_edges``.

    Returns:
        (B, T, h, w), dtype of ``lab``, values 0 ... O.

    Raises:
        ValueError: ``threshold`` is outside (0, 1].

    Example:
        >>> lab = torch.zeros(1, 1, 3, 1, 3)  # one row of three black cells
        >>> outside_edges(lab, [(0, -1), (0, 1)], threshold=0.3)
        tensor([[[[1., 0., 1.]]]])
    """
    height, width = lab.shape[-2:]
    outside = lab.new_full((height, width), len(offsets))
    for offset in offsets:
        outside[pair_slices(offset, height, width)[0]] -= 1
    return outside * (lab.square().sum(2) <= max_squared_distance(threshold))


def _box_sum(x: Tensor, size: int) -> Tensor:
    """Sum over size x size windows, (..., h + size - 1, w + size - 1) -> (..., h, w)."""
    for axis in (-2, -1):
        length = x.shape[axis] - size + 1
        parts = [x.narrow(axis, start, length) for start in range(size)]
        x = parts[0] + parts[1] if size > 1 else parts[0]
        for part in parts[2:]:
            x += part
    return x


def patch_distances(
    lab: Tensor,
    pairs: Sequence[tuple[int, int]],
    offsets: Sequence[Offset],
    patch_size: int = 3,
    valid: Tensor | None = None,
) -> Tensor:
    """Squared distances of the Lab patches of one frame to shifted patches of another.

    For the pair (a, b) and the offset o, the patch of frame b at p is compared with that of frame
    a at p + o: a windowed sum of squared colour differences, without a copy of any patch.

    Args:
        lab: (B, T, 3, h, w).
        pairs: E pairs (a, b) of frame indices.
        offsets: R offsets (dy, dx).
        patch_size: Side of the patch in cells, odd.
        valid: Cells that may match, (B, h, w), bool. Other cells, and candidates outside the map,
            have an infinite distance. None: all cells may match, and a candidate outside the map is
            a patch of zeros, as in the reference.

    Returns:
        (B, E, R, h, w), dtype of ``lab``. Colours outside the map are zeros.

    Raises:
        ValueError: ``patch_size`` is even.

    Example:
        >>> lab = torch.zeros(1, 2, 3, 1, 2)  # two frames of 1 x 2 cells
        >>> lab[:, 0, 0] = torch.tensor([1.0, 3.0])
        >>> patch_distances(lab, [(0, 1)], [(0, 0)], patch_size=1)
        tensor([[[[[1., 9.]]]]])
    """
    if patch_size % 2 == 0:
        raise ValueError(f"the patch size is odd, got {patch_size}")
    height, width = lab.shape[-2:]
    margin = patch_size // 2
    reach_y = max(abs(dy) for dy, _ in offsets) + margin
    reach_x = max(abs(dx) for _, dx in offsets) + margin
    first, second = zip(*pairs, strict=True)
    anchor = F.pad(lab[:, list(second)], (margin,) * 4)
    searched = F.pad(lab[:, list(first)], (reach_x, reach_x, reach_y, reach_y))
    distances = lab.new_empty(lab.shape[0], len(pairs), len(offsets), height, width)
    blank = None if valid is not None else _box_sum(anchor.square().sum(2), patch_size)
    for index, (dy, dx) in enumerate(offsets):
        top, left = reach_y - margin + dy, reach_x - margin + dx
        shifted = searched[..., top : top + anchor.shape[-2], left : left + anchor.shape[-1]]
        distance = _box_sum((anchor - shifted).square_().sum(2), patch_size)
        here, there = pair_slices((dy, dx), height, width)
        if valid is not None:
            allowed = torch.zeros_like(valid)
            allowed[(..., *here)] = valid[(..., *here)] & valid[(..., *there)]
            distance.masked_fill_(allowed.logical_not_()[:, None], float("inf"))
        else:
            assert blank is not None
            inside = torch.zeros(height, width, dtype=torch.bool, device=lab.device)
            inside[here] = True
            distance = torch.where(inside, distance, blank)
        distances[:, :, index] = distance
    return distances


def nearest_matches(distances: Tensor, top_k: int, threshold: float) -> Tensor:
    """The K nearest candidates of each cell within a threshold (paper sec. 3.2, "KNN matching").

    Args:
        distances: Squared patch distances, (B, E, R, h, w).
        top_k: K; 1 <= K. Of equal distances the one with the lower index is nearer.
        threshold: Least similarity exp(-d / 2), in (0, 1].

    Returns:
        (B, E, R, h, w), bool.

    Raises:
        ValueError: ``top_k`` is below 1, or ``threshold`` is outside (0, 1].

    Example:
        >>> distances = torch.tensor([0.1, 9.0, 0.2]).view(1, 1, 3, 1, 1)
        >>> nearest_matches(distances, top_k=1, threshold=0.5).flatten().tolist()
        [True, False, False]
    """
    if top_k < 1:
        raise ValueError(f"top_k is at least 1, got {top_k}")
    keep = distances <= max_squared_distance(threshold)
    num_candidates = distances.shape[2]
    if top_k >= num_candidates:
        return keep
    dtype = torch.uint8 if num_candidates < 256 else torch.int16
    # rank of each candidate: it starts after all earlier candidates and moves before farther ones
    rank = torch.arange(num_candidates, dtype=dtype, device=distances.device)
    rank = rank.view(-1, 1, 1).expand_as(distances).contiguous()
    for step in range(1, num_candidates):
        # compare all candidates i with i + step
        later_nearer = distances[:, :, step:] < distances[:, :, :-step]
        rank[:, :, :-step] += later_nearer
        rank[:, :, step:] -= later_nearer.view(torch.uint8)
    return keep.logical_and_(rank < top_k)


def frame_pairs(kind: str, num_frames: int) -> list[tuple[int, int]]:
    """Ordered frame pairs (a, b) of a clip whose masks are compared.

    Args:
        kind: "chain": consecutive frames. "cycle": these, and the last with the first. "all": every
            a < b. "stride-k" with an integer k >= 1: frames that are k apart.
        num_frames: T.

    Returns:
        List of pairs, empty for T = 1. With two frames "cycle" equals "chain".

    Raises:
        ValueError: ``kind`` is none of these.

    Example:
        >>> frame_pairs("cycle", 3)
        [(0, 1), (1, 2), (2, 0)]
    """
    if kind == "all":
        return [(a, b) for a in range(num_frames) for b in range(a + 1, num_frames)]
    prefix, _, number = kind.partition("-")
    if kind in ("chain", "cycle"):
        step = 1
    elif prefix == "stride" and number.isdecimal() and int(number) >= 1:
        step = int(number)
    else:
        raise ValueError(
            f"frame pairs are one of 'cycle', 'all', 'chain', 'stride-k' (k >= 1); got {kind!r}"
        )
    pairs = [(t, t + step) for t in range(num_frames - step)]
    if kind == "cycle" and num_frames > 2:
        pairs.append((num_frames - 1, 0))
    return pairs
