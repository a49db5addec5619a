"""Multi-scale deformable attention (Zhu et al., Deformable DETR, arXiv 2010.04159, equation 3).

On the CPU it is computed as sparse matrices (one for each of the four bilinear corners of a point)
times the value tokens, with closed-form gradients; on other devices by ``F.grid_sample``, level by
level.

S: value tokens of all levels, L: query tokens, K: levels, P: points per level, D: head channels.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Least tokens for the sparse kernels on the CPU (252 tokens: 0.6x as fast, 1008 tokens: 2x).
_SPARSE_TOKENS = 512


def multi_scale_deformable_attention(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Weighted sum of bilinear samples of the value maps, head by head.

    Args:
        value: Projected tokens, (B, S, heads, D); the levels one after the other, rows first. Half
            precision is sampled in float32, as positions in bfloat16 are too inaccurate.
        spatial_shapes: (height, width) of each of the K levels; the products sum to S.
        sampling_locations: (x, y) of each point, (B, L, heads, K, P, 2). (0, 0) is the outer corner
            of the first cell of a level and (1, 1) of its last cell. Values outside are 0.
        attention_weights: (B, L, heads, K, P), usually normalised to sum 1 over (K, P).

    Returns:
        (B, L, heads * D), dtype of ``value``. Differentiable once.

    Raises:
        ValueError: The levels do not have S cells in total, or a level has no cell.

    Example:
        >>> value = torch.arange(4.0).view(1, 4, 1, 1)  # one 2 x 2 map with the values 0 ... 3
        >>> center = torch.full((1, 1, 1, 1, 1, 2), 0.5)
        >>> weight = torch.ones(1, 1, 1, 1, 1)
        >>> multi_scale_deformable_attention(value, [(2, 2)], center, weight).item()
        1.5
    """
    num_tokens = value.shape[1]
    sizes = [height * width for height, width in spatial_shapes]
    if sum(sizes) != num_tokens or min(sizes) < 1:
        raise ValueError(
            f"multi_scale_deformable_attention: spatial_shapes {list(spatial_shapes)} have "
            f"{sum(sizes)} cells, but value has {num_tokens} tokens. They must be equal, and each "
            "level needs a cell."
        )
    dtype = torch.promote_types(value.dtype, torch.float32)
    inputs = (value.to(dtype), sampling_locations.to(dtype), attention_weights.to(dtype))
    is_sparse = value.device.type == "cpu" and num_tokens >= _SPARSE_TOKENS
    if is_sparse and not torch.compiler.is_exporting():  # ONNX has an operator for grid_sample
        output = _SparseAttention.apply(*inputs, tuple(spatial_shapes))
    else:
        output = _grid_sample_attention(*inputs, spatial_shapes)
    return output.to(value.dtype)


def _grid_sample_attention(
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
) -> Tensor:
    """The attention by one ``F.grid_sample`` for each level."""
    batch, _, heads, dim = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    # (B, L, heads, K, P, 2) -> K x (B * heads, L, P, 2)
    grids = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    weights = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)
    output = value.new_zeros(batch * heads, dim, queries)
    sizes = [height * width for height, width in spatial_shapes]
    for k, tokens in enumerate(value.split(sizes, dim=1)):
        maps = tokens.permute(0, 2, 3, 1).reshape(batch * heads, dim, *spatial_shapes[k])
        sampled = F.grid_sample(maps, grids[k], padding_mode="zeros", align_corners=False)
        output = output + (sampled * weights[k].view(batch * heads, 1, queries, points)).sum(-1)
    return output.view(batch, heads * dim, queries).transpose(1, 2)


class _Axis(NamedTuple):
    """Sizes along x or y of the level of each sampling point; tensors (heads * K * P,).

    A point is interpolated between two neighbouring cells. For a point beyond the border the two
    outermost cells are used; their weight (``_hat``) is 0 if they are not next to the point, so
    that neither a mask nor padding is needed.
    """

    size: Tensor  # cells of the level
    last: Tensor  # the largest first cell, int32
    gap: Tensor  # cells from the first to the second: 1, infinite where the level has only one
    step: Tensor  # rows of the value table from the first to the second, int32; 0 if only one


def _axes(
    shapes: Sequence[tuple[int, int]], heads: int, points: int, dtype: torch.dtype
) -> tuple[_Axis, _Axis, Tensor]:
    """The axes x and y, and the row of each level's first cell in the table (S * heads, D)."""

    def columns(values: Sequence[float], dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.tensor(values, dtype=dtype).repeat_interleave(points).repeat(heads)

    def axis(lengths: Sequence[int], strides: Sequence[int]) -> _Axis:
        return _Axis(
            size=columns(lengths, dtype),
            last=columns([max(n - 2, 0) for n in lengths]),
            gap=columns([1 if n > 1 else math.inf for n in lengths], dtype),
            step=columns([heads * s * (n > 1) for n, s in zip(lengths, strides, strict=True)]),
        )

    heights, widths = zip(*shapes, strict=True)
    starts = itertools.accumulate((h * w for h, w in shapes[:-1]), initial=0)
    head = torch.arange(heads, dtype=torch.int32).repeat_interleave(len(shapes) * points)
    first = columns([heads * start for start in starts]) + head
    return axis(widths, [1] * len(shapes)), axis(heights, widths), first


def _hat(way: Tensor) -> Tensor:
    """Bilinear weight of a cell at distance ``way`` (in cells) from the point."""
    return way.abs().neg_().add_(1).clamp_(min=0)


def _slope(way: Tensor) -> Tensor:
    """Derivative of ``_hat``; at its kinks the right-hand derivative, as in ``F.grid_sample``."""
    floor = way.floor()
    return _hat(floor + 1) - _hat(floor)


class _Corners(NamedTuple):
    """The four cells next to each point of a frame; tensors (L, heads * K * P)."""

    rows: list[list[Tensor]]  # rows[i][j]: row of the value table for cell i in y and j in x, int32
    x: list[Tensor]  # x[j]: x of the point minus x of cell j
    y: list[Tensor]  # y[i]: y of the point minus y of cell i
    across: list[Tensor]  # across[j]: bilinear weight along x
    down: list[Tensor]  # down[i]: bilinear weight along y


def _corners(locations: Tensor, axes: tuple[_Axis, _Axis, Tensor]) -> _Corners:
    """Find the four cells of the points (L, heads, K, P, 2) of a frame; ``axes`` from ``_axes``."""
    row, ways = axes[2], []
    for d, axis in enumerate(axes[:2]):
        at = locations.flatten(1, 3)[..., d] * axis.size - 0.5
        # Clamped as an integer, so that a NaN too gives a valid index; its weight stays NaN.
        cell = torch.minimum(at.floor().to(torch.int32).clamp_(min=0), axis.last)
        way = at.sub_(cell)
        ways.append([way, way - axis.gap])
        row = row + cell.mul_(axis.step)
    below = row + axes[1].step
    rows = [[row, row + axes[0].step], [below, below + axes[0].step]]
    return _Corners(rows, *ways, *([_hat(way) for way in pair] for pair in ways))


def _bag_sums(table: Tensor, rows: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """Sum of weights * table[rows] in each bag; bag i holds the entries bags[i]:bags[i + 1]."""
    rows, weights = rows.flatten(), weights.flatten()
    return torch.embedding_bag(table, rows, bags, False, 0, False, weights, True)[0]


@functools.cache
def _accept_sparse_csr() -> None:
    """Trigger PyTorch's warning that CSR tensors are a beta feature, and hide it; it comes once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1))


def _value_gradient(
    grad: Tensor,
    corners: _Corners,
    attention: Tensor,
    shapes: tuple[tuple[int, int], ...],
    heads: int,
) -> Tensor:
    """Gradient of the value table of a frame, (S * heads, D), from the gradient of the output.

    It multiplies by the transposed matrices: the points are sorted by the row of their first
    corner, each corner is summed in that order, and the sums are shifted by the distance in rows
    between that corner and the first.
    """
    first = corners.rows[0][0].flatten()
    order = first.argsort(stable=True).to(torch.int32)
    size = heads * sum(height * width for height, width in shapes)
    bags = F.pad(first.bincount(minlength=size).cumsum(0, dtype=torch.int32), (1, 0))
    owners = order.div(first.numel() // max(len(grad), 1), rounding_mode="trunc")  # rows of grad
    total = grad.new_zeros(size, grad.shape[1])
    for i in range(2):
        down = corners.down[i] * attention
        for j in range(2):
            weights = (down * corners.across[j]).flatten().index_select(0, order)
            sums, start = _bag_sums(grad, owners, bags, weights), 0
            for height, width in shapes:
                stop = start + heads * height * width
                shift = heads * (i * width * (height > 1) + j * (width > 1))
                total[start + shift : stop] += sums[start : stop - shift]
                start = stop
    return total


def _point_gradients(
    grad: Tensor,
    table: Tensor,
    corners: _Corners,
    attention: Tensor,
    axes: tuple[_Axis, _Axis, Tensor],
) -> tuple[Tensor, Tensor]:
    """Gradients of a frame's locations, (L, heads * K * P, 2), and attention weights."""
    _accept_sparse_csr()
    rows, x, y, across, down = corners
    entries = attention.numel() // len(grad)
    bags = torch.arange(0, attention.numel() + 1, entries, dtype=torch.int32)

    def dot(rows: Tensor) -> Tensor:
        """Dot product of the gradient of each output row with the value rows of its points."""
        size = (len(grad), len(table))
        matrix = torch.sparse_csr_tensor(bags, rows.flatten(), attention.flatten(), size)
        product = torch.sparse.sampled_addmm(matrix, grad, table.t(), beta=0)
        return product.values().view_as(attention)

    dots = [[dot(rows[i][j]) for j in range(2)] for i in range(2)]
    by_row = [across[0] * dots[i][0] + across[1] * dots[i][1] for i in range(2)]
    by_column = [down[0] * dots[0][j] + down[1] * dots[1][j] for j in range(2)]
    x_slope = _slope(x[0]) * by_column[0] + _slope(x[1]) * by_column[1]
    y_slope = _slope(y[0]) * by_row[0] + _slope(y[1]) * by_row[1]
    slopes = [x_slope * attention * axes[0].size, y_slope * attention * axes[1].size]
    return torch.stack(slopes, dim=-1), down[0] * by_row[0] + down[1] * by_row[1]


class _SparseAttention(torch.autograd.Function):
    """The attention as products with four sparse matrices, one for each bilinear corner.

    Value and output of a frame are used as tables (S * heads, D) and (L * heads, D), without a
    copy; a matrix has K * P entries in each row. ``embedding_bag`` and ``sampled_addmm`` are the
    vectorised PyTorch kernels for these products. Frames are computed one by one, as all frames
    together took up to twice the time.
    """

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, locations: Tensor, weights: Tensor, shapes: tuple
    ) -> Tensor:
        """Compute the attention; arguments as above, float32 or float64, on the CPU."""
        ctx.save_for_backward(value, locations, weights)
        ctx.shapes = shapes
        batch, queries, heads, levels, points = weights.shape
        axes = _axes(shapes, heads, points, value.dtype)
        entries = levels * points
        bags = torch.arange(0, queries * heads * entries + 1, entries, dtype=torch.int32)
        dim = value.shape[3]
        output = value.new_zeros(batch, queries * heads, dim)
        for b in range(batch):
            corners = _corners(locations[b], axes)
            table, attention = value[b].flatten(0, 1), weights[b].flatten(1)
            for i in range(2):
                down = corners.down[i] * attention
                for j in range(2):
                    weight = down * corners.across[j]
                    output[b] += _bag_sums(table, corners.rows[i][j], bags, weight)
        return output.view(batch, queries, heads * dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of value, locations and weights, or None where none is needed."""
        saved = value, locations, weights = ctx.saved_tensors  # once: checkpointing allows no more
        batch, queries, heads, _, points = weights.shape
        axes = _axes(ctx.shapes, heads, points, value.dtype)
        grad = grad.reshape(batch, queries * heads, value.shape[3])
        wants_value, wants_points = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
        value_grad, place_grad, weight_grad = (
            torch.zeros_like(tensor, memory_format=torch.contiguous_format) if wanted else None
            for tensor, wanted in zip(saved, (wants_value, wants_points, wants_points), strict=True)
        )
        for b in range(batch):
            corners, attention = _corners(locations[b], axes), weights[b].flatten(1)
            if value_grad is not None:
                table = _value_gradient(grad[b], corners, attention, ctx.shapes, heads)
                value_grad[b] = table.view_as(value[b])
            if place_grad is not None and weight_grad is not None and queries:
                table = value[b].flatten(0, 1)
                place, weight = _point_gradients(grad[b], table, corners, attention, axes)
                place_grad[b] = place.view_as(locations[b])
                weight_grad[b] = weight.view_as(weights[b])
        return value_grad, place_grad, weight_grad, None
