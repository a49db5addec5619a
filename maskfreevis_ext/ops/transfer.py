"""Copies many small tensors from the CPU to a device in one transfer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def send_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copy tensors to a device in one transfer, without waiting for the device.

    Their bytes are joined in one buffer (of pinned memory if the device is a GPU), the buffer is
    copied, and the results are views of the copy. They share memory with one another, but never
    with ``tensors``.

    Args:
        tensors: Tensors on the CPU, of any shapes and dtypes, without gradients.
        device: Device of the results.

    Returns:
        Tensors of the same values, shapes and dtypes in the same order.

    Example:
        >>> device = torch.device("cpu")
        >>> flags, sizes = send_together([torch.tensor([True]), torch.tensor([2, 3])], device)
        >>> flags.tolist(), sizes.tolist()
        ([True], [2, 3])
    """
    if not tensors:
        return []
    # Wide items first: then every part starts at a multiple of its item size.
    order = sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
    # an expanded tensor of one element counts as contiguous, with a stride of 0
    flat = [tensors[i].contiguous().as_strided((tensors[i].numel(),), (1,)) for i in order]
    parts = [x.view(torch.uint8) for x in flat]
    sizes = [part.numel() for part in parts]
    buffer = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    torch.cat(parts, out=buffer)
    moved = buffer.to(device, non_blocking=True).split(sizes)
    found = dict(zip(order, moved, strict=True))
    return [found[i].view(x.dtype).view(x.shape) for i, x in enumerate(tensors)]
