"""Deformable attention in its usual form, `F.grid_sample` level by level: slow, but easy to check.

The yardstick of tests and benchmarks for ``maskfreevis_ext.ops.deform_attn``.
S: value tokens of all levels, L: query tokens, K: levels, P: points per level, D: head channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def grid_sample_attention(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Weighted sum of bilinear samples (Deformable DETR, arXiv 2010.04159, equation 3).

    Args:
        value: Projected tokens, (B, S, heads, D); the levels one after the other, rows first.
        spatial_shapes: (height, width) of each of the K levels.
        sampling_locations: (x, y) in [0, 1] of each level, (B, L, heads, K, P, 2).
        attention_weights: (B, L, heads, K, P).

    Returns:
        (B, L, heads * D).
    """
    batch, _, heads, dim = value.shape
    queries = sampling_locations.shape[1]
    grids = 2 * sampling_locations - 1
    maps = value.split([height * width for height, width in spatial_shapes], dim=1)
    samples = []
    for k, (height, width) in enumerate(spatial_shapes):
        # (B, h*w, heads, D) -> (B * heads, D, h, w); (B, L, heads, P, 2) -> (B * heads, L, P, 2)
        image = maps[k].flatten(2).transpose(1, 2).reshape(batch * heads, dim, height, width)
        grid = grids[:, :, :, k].transpose(1, 2).flatten(0, 1)
        samples.append(
            F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        )
    # (B, L, heads, K, P) -> (B * heads, 1, L, K * P)
    weights = attention_weights.transpose(1, 2).flatten(3).flatten(0, 1).unsqueeze(1)
    output = (torch.stack(samples, dim=-2).flatten(-2) * weights).sum(-1)
    return output.view(batch, heads * dim, queries).transpose(1, 2).contiguous()
