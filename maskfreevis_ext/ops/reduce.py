"""Communication between processes and between devices."""

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
        value: Same shape on every rank; every rank must call this.

    Returns:
        The mean, same shape and dtype.

    Example:
        >>> mean_over_ranks(torch.tensor([2.0, 4.0]))  # one process: the same values
        tensor([2., 4.])
    """
    value = value.detach()
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def send(value: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor from the CPU to another device, without waiting for that device.

    Args:
        value: The tensor; one that is on a GPU already is moved by ``Tensor.to``.
        device: Where it is needed.

    Example:
        >>> send(torch.tensor([0, 2]), torch.device("cpu"))
        tensor([0, 2])
    """
    if device.type != "cuda" or value.device.type == "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
