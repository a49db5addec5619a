"""Matching as the reference computes it: filled box maps of all queries at random points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fill_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Filled maps (..., H, W) of integer boxes (..., 4)."""
    rows = torch.arange(size[0])
    cols = torch.arange(size[1])
    x0, y0, x1, y1 = boxes[..., None].unbind(-2)
    inside_y = (rows >= y0) & (rows < y1)
    inside_x = (cols >= x0) & (cols < x1)
    return (inside_y[..., :, None] & inside_x[..., None, :]).float()


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values (n, T, P) of maps (n, T, H, W) at (x, y) in [0, 1], (P, 2); zero outside."""
    grid = (2 * points - 1).expand(len(maps), -1, -1)[:, :, None]
    return F.grid_sample(maps, grid, align_corners=False)[..., 0]


def dice_matrix(first: Tensor, second: Tensor) -> Tensor:
    """1 - (2 <a, g> + 1) / (sum a + sum g + 1) for all rows of (Q, n) and (N, n)."""
    total = first.sum(1)[:, None] + second.sum(1)[None]
    return 1 - (2 * first @ second.T + 1) / (total + 1)


def sampled_box_dice(
    pred_boxes: Tensor, target_boxes: Tensor, size: tuple[int, int], stride: int, points: Tensor
) -> Tensor:
    """Dice cost (Q, N) of box tubes, estimated at points."""
    small = size[0] // stride, size[1] // stride
    predictions = sample(fill_boxes(pred_boxes, small), points).flatten(1)
    targets = sample(fill_boxes(target_boxes, size), points).flatten(1)
    return dice_matrix(predictions, targets)
