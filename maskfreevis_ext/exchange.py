"""Plain values between the processes of a job, as JSON in tensors.

PyTorch's and Detectron2's own functions for objects unpickle what the others send, and unpickling
runs whatever it is told to.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor


def all_gather_json(value: Any) -> list[Any]:
    """The values of all processes, in the order of their ranks; all of them must call it.

    Args:
        value: Any value for ``json.dumps``; NaN and infinities are allowed. The others get lists
            for its tuples, and dicts whose keys are texts.

    Returns:
        The values. In a job of one process the value itself is the only one, unchanged.
    """
    if comm.get_world_size() == 1:
        return [value]
    parts, sizes = _exchange(value)
    gathered = [torch.empty_like(parts) for _ in sizes]
    dist.all_gather(gathered, parts)
    return _decode(gathered, sizes)


def gather_json(value: Any) -> list[Any]:
    """The values of all processes on the first of them; all of them must call it.

    Args:
        value: As in ``all_gather_json``.

    Returns:
        The values in the order of their ranks; an empty list on the other processes.
    """
    if comm.get_world_size() == 1:
        return [value]
    parts, sizes = _exchange(value)
    gathered = [torch.empty_like(parts) for _ in sizes] if comm.is_main_process() else None
    dist.gather(parts, gathered)
    return _decode(gathered, sizes) if gathered is not None else []


def _exchange(value: Any) -> tuple[Tensor, list[int]]:
    """The value as bytes, padded to the longest of all processes (uint8), and all lengths."""
    device = "cpu"
    if dist.get_backend() == dist.Backend.NCCL:
        device = f"cuda:{torch.cuda.current_device()}"
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    own = torch.tensor([len(data)], device=device)
    lengths = [torch.empty_like(own) for _ in range(comm.get_world_size())]
    dist.all_gather(lengths, own)
    sizes = [int(length) for length in lengths]
    padded = torch.zeros(max(sizes), dtype=torch.uint8)
    padded[: len(data)] = data
    return padded.to(device), sizes


def _decode(parts: list[Tensor], sizes: list[int]) -> list[Any]:
    return [
        json.loads(part[:size].cpu().numpy().tobytes())
        for part, size in zip(parts, sizes, strict=True)
    ]
