"""Multi-scale deformable attention (Zhu et al., Deformable DETR, arXiv 2010.04159, equation 3).

S: value tokens of all levels, L: query tokens, K: levels, P: points per level, D: head channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_scale_deformable_attention(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Weighted sum of bilinear samples of the value maps, head by head.

    Args:
        value: Projected tokens, (B, S, heads, D); the levels one after the other, rows first. Half
            precision is sampled in float32: a position in bfloat16 is off by a part of a cell.
        spatial_shapes: (height, width) of each of the K levels; the products sum to S.
        sampling_locations: (x, y) in [0, 1] of each level, (0, 0) the outer corner of the first
            cell and (1, 1) that of the last, (B, L, heads, K, P, 2). Outside the map counts as 0.
        attention_weights: (B, L, heads, K, P), usually with sum 1 over (K, P).

    Returns:
        (B, L, heads * D), dtype of ``value``.

    Raises:
        ValueError: The levels do not have S tokens in all.
    """
    batch, num_tokens, heads, dim = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    sizes = [height * width for height, width in spatial_shapes]
    if sum(sizes) != num_tokens:
        raise ValueError(
            f"multi_scale_deformable_attention: spatial_shapes {list(spatial_shapes)} have "
            f"{sum(sizes)} cells, but value has {num_tokens} tokens."
        )
    dtype = torch.promote_types(value.dtype, torch.float32)
    # (B, L, heads, K, P, 2) -> K x (B * heads, L, P, 2)
    grids = (2 * sampling_locations - 1).to(dtype).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    weights = attention_weights.to(dtype).permute(3, 0, 2, 1, 4).flatten(1, 2)
    output = value.new_zeros(batch * heads, dim, queries, dtype=dtype)
    for k, tokens in enumerate(value.to(dtype).split(sizes, dim=1)):
        maps = tokens.permute(0, 2, 3, 1).reshape(batch * heads, dim, *spatial_shapes[k])
        sampled = F.grid_sample(maps, grids[k], padding_mode="zeros", align_corners=False)
        output = output + (sampled * weights[k].view(batch * heads, 1, queries, points)).sum(-1)
    return output.view(batch, heads * dim, queries).transpose(1, 2).to(value.dtype)
