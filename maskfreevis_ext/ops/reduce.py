"""What moves between processes and devices: normalisers that all ranks share, small indices."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes of the default group; the tensor itself with one process.

    DDP averages gradients over ranks, so a sum that is divided by the mean of the normalisers
    gives the gradient of one process on the union of the ranks' batches. The result carries no
    gradient.

    Args:
        value: Same shape on every rank.
    """
    value = value.detach()
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def send(value: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the CPU on another device, without waiting for that device."""
    if device.type != "cuda" or value.device.type == "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
