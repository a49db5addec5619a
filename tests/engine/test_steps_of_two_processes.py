"""Steps of two processes: one exchange of gradients, and NaN in one of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from maskfreevis_ext.engine.bad_batches import MAX_SKIPPED, BadBatches
from maskfreevis_ext.engine.train_step import NumericErrorElsewhere, TrainStep
from maskfreevis_ext.errors import NumericError
from tests.helpers.ranks import run_two_ranks


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


def _step(model: nn.Module, batches: list[list[dict]], **options: Any) -> TrainStep:
    step = TrainStep(model, batches, torch.optim.SGD(model.parameters(), lr=0.1), **options)
    step.iter = 0
    return step


def _update(model: nn.Module, batches: list[list[dict]], accumulate: int) -> None:
    step = _step(model, batches, accumulate=accumulate)
    with EventStorage(0):
        step.run_step()


def _part_of_rank(rank: int) -> tuple[Tensor, int]:
    exchanges: list[int] = []

    def counted(group, bucket):  # DDP compares annotations, and those of this module are strings
        exchanges.append(rank)
        return allreduce_hook(group, bucket)

    model = DistributedDataParallel(_Mean())
    model.register_comm_hook(None, counted)
    _update(model, _batches()[2 * rank : 2 * rank + 2], accumulate=2)
    return model.module.w.detach(), len(exchanges)


@pytest.mark.slow
def test_two_processes_with_two_batches_each_give_the_update_of_all_four(tmp_path: Path) -> None:
    expected = _Mean()
    _update(expected, _batches(), accumulate=4)
    for weight, exchanges in run_two_ranks(_part_of_rank, tmp_path):
        torch.testing.assert_close(weight, expected.w.detach())
        assert exchanges == 1


def _skip_bad_batch(rank: int, accumulate: int) -> tuple[str, str, Tensor]:
    batches = _batches() + _batches()
    if rank == 1:
        batches[0][0]["x"] *= torch.nan
    model = DistributedDataParallel(_Mean())
    step = _step(model, batches, accumulate=accumulate, raise_together=True)
    with EventStorage(0):
        with pytest.raises(NumericError) as error:
            step.run_step()
        assert torch.equal(model.module.w, _Mean().w)
        step.run_step()
    return type(error.value).__name__, str(error.value), model.module.w.detach()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_nan_in_one_process_raises_in_both_and_they_go_on(tmp_path: Path, accumulate: int) -> None:
    expected = _Mean()
    _update(expected, _batches()[accumulate : 2 * accumulate], accumulate)
    here, there = run_two_ranks(_skip_bad_batch, tmp_path, accumulate)
    assert here[0] == "NumericErrorElsewhere"
    assert here[1].startswith("Rank 1: Iteration 0")
    assert there[0] == "NumericError"
    assert "expected finite losses, got loss_a = nan" in there[1]
    for result in (here, there):
        torch.testing.assert_close(result[2], expected.w.detach())


def _skip_bad_gradient(rank: int) -> tuple[str, Tensor]:
    model = DistributedDataParallel(_Mean())
    factors = [torch.nan if rank == 1 else 1.0, 1.0]
    model.module.w.register_hook(lambda gradient: gradient * factors.pop(0))
    step = _step(model, _batches(), raise_together=True)
    with EventStorage(0):
        with pytest.raises(NumericError) as error:
            step.run_step()
        assert torch.equal(model.module.w, _Mean().w)
        step.run_step()
    return str(error.value), model.module.w.detach()


def test_nan_in_the_gradient_of_one_process_raises_in_both(tmp_path: Path) -> None:
    expected = _Mean()
    _update(expected, _batches()[1:2], accumulate=1)
    for message, weight in run_two_ranks(_skip_bad_gradient, tmp_path):
        assert "expected finite gradients" in message
        torch.testing.assert_close(weight, expected.w.detach())


def test_steps_left_out_for_another_process_are_counted_alike(tmp_path: Path) -> None:
    """And with the same bound; the batch of this process is not the one to keep."""
    model = _Mean()
    trainer = SimpleNamespace(
        cfg=SimpleNamespace(OUTPUT_DIR=str(tmp_path)),
        **{"iter": 0, "seed": 1, "model": model, "_trainer": _step(model, []), "storage": Mock()},
    )
    here, there = BadBatches("skip"), BadBatches("skip")
    for _ in range(MAX_SKIPPED):
        here.handle(NumericErrorElsewhere("Rank 1: NaN"), trainer)
    assert list(tmp_path.iterdir()) == []
    for _ in range(MAX_SKIPPED):
        there.handle(NumericError("NaN"), trainer)
    assert [path.name for path in tmp_path.iterdir()] == ["bad_batch_0000000.pt"]
    assert here.state_dict() == there.state_dict() == {"count": 10, "in_a_row": 10}
    for one, kind in ((here, NumericErrorElsewhere), (there, NumericError)):
        with pytest.raises(NumericError, match=f"{MAX_SKIPPED + 1} steps were left out"):
            one.handle(kind("NaN"), trainer)
