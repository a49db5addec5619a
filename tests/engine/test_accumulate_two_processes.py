"""Two processes that accumulate: one exchange of gradients, and the update of one process."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from maskfreevis_ext.engine.train_step import TrainStep


class _Mean(nn.Module):
    """Mean of (w x - 1) ** 2 over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[0.5, -1.0]]))

    def forward(self, batch: list[dict]) -> dict[str, Tensor]:
        errors = [(self.w @ sample["x"] - 1).square().sum() for sample in batch]
        return {"loss_a": torch.stack(errors).mean()}


def _batches() -> list[list[dict[str, Any]]]:
    torch.manual_seed(4)
    return [[{"x": torch.randn(2)} for _ in range(2)] for _ in range(4)]


def _update(model: nn.Module, batches: list[list[dict]], accumulate: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = TrainStep(model, batches, optimizer, accumulate=accumulate)
    step.iter = 0
    with EventStorage(0):
        step.run_step()


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    exchanges: list[int] = []

    def counted(group, bucket):  # DDP compares annotations, and those of this module are strings
        exchanges.append(rank)
        return allreduce_hook(group, bucket)

    model = DistributedDataParallel(_Mean())
    model.register_comm_hook(None, counted)
    _update(model, _batches()[2 * rank : 2 * rank + 2], accumulate=2)
    torch.save((model.module.w.detach(), len(exchanges)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_two_batches_each_give_the_update_of_all_four(tmp_path: Path) -> None:
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    expected = _Mean()
    _update(expected, _batches(), accumulate=4)
    for rank in range(2):
        weight, exchanges = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(weight, expected.w.detach())
        assert exchanges == 1
