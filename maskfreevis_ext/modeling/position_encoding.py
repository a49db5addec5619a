"""Sine position encodings of maps and of clips. No parameters; values depend on the size alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _sine_axis(length: int, dim: int, device: torch.device) -> Tensor:
    """Encoding of positions 1..length, scaled so that the last is 2 pi.

    Returns:
        (length, dim), float32: sine and cosine in turn, of falling frequency.
    """
    position = torch.arange(1, length + 1, device=device, dtype=torch.float32)
    position = position / (length + 1e-6) * (2 * math.pi)
    channel = torch.arange(dim, device=device)
    frequency = 10000.0 ** (2 * torch.div(channel, 2, rounding_mode="floor") / dim)
    angle = position[:, None] / frequency
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


def sine_position_2d(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Position encoding of a map: y in the first half of the channels, x in the second half.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        dim: Channels; even.
        device: Where to make it.

    Returns:
        (height * width, dim), rows first, float32.
    """
    y = _sine_axis(height, dim // 2, device)[:, None].expand(-1, width, -1)
    x = _sine_axis(width, dim // 2, device)[None].expand(height, -1, -1)
    return torch.cat([y, x], dim=2).flatten(0, 1)


def sine_position_3d(
    num_frames: int, height: int, width: int, dim: int, device: torch.device
) -> Tensor:
    """Position encoding of a clip: ``sine_position_2d`` plus an encoding of time over all channels.

    Args:
        num_frames: T, frames of the clip; time spans (0, 2 pi] whatever T is.
        height: Rows of the map.
        width: Columns of the map.
        dim: Channels; even.
        device: Where to make it.

    Returns:
        (T * height * width, dim), frames first, then rows, float32.
    """
    time = _sine_axis(num_frames, dim, device)
    return (time[:, None] + sine_position_2d(height, width, dim, device)).flatten(0, 1)
