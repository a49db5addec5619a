"""Communication between processes and between devices."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes of the default group; the tensor itself with one process.

    DDP averages gradients over ranks. So a sum that is divided by the mean normaliser of the ranks
    gives the same gradient as one process with the batches of all ranks. The result has no
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
        value: The tensor; if it is on a GPU already, ``Tensor.to`` is used.
        device: Device of the result.

    Example:
        >>> send(torch.tensor([0, 2]), torch.device("cpu"))
        tensor([0, 2])
    """
    if device.type != "cuda" or value.device.type == "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
