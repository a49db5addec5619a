"""Two processes that speak to each other through Gloo, for code that reduces over ranks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_two_ranks(work: Callable[..., Any], folder: Path, *args: object) -> list[Any]:
    """Call ``work(rank, *args)`` in two processes of one group.

    They are forked: they need not import everything again.

    Args:
        work: Gives what ``torch.load`` takes as weights only: tensors, numbers, texts, lists, ...
        folder: Empty folder, for their meeting and their answers.
        args: Further arguments.

    Returns:
        The answers of rank 0 and rank 1.
    """
    mp.start_processes(_rank, (work, str(folder), args), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _rank(rank: int, work: Callable[..., Any], folder: str, args: tuple[object, ...]) -> None:
    store, limit = f"file://{folder}/store", timedelta(minutes=10)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=limit)
    torch.save(work(rank, *args), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
