"""Gradient accumulation: the gradient of one larger batch, and counters that count updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from maskfreevis_ext.engine.accumulate import gradient_sync
from maskfreevis_ext.engine.optimizer import with_full_model_clipping
from maskfreevis_ext.engine.train_step import TrainStep
from maskfreevis_ext.engine.trainer import Trainer
from maskfreevis_ext.errors import NumericError
from tests.helpers.trainers import make_trainer


class _Mean(nn.Module):
    """Mean of (w * x - y) ** 2 over the batch; counts its calls as a criterion does."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[0.5, -1.0]]))
        self.register_buffer("calls", torch.zeros(()))
        self.steps: list[float] = []

    def reset_schedule(self, step: int) -> None:
        self.calls.fill_(step)

    def forward(self, batch: list[dict]) -> dict[str, Tensor]:
        self.steps.append(self.calls.item())
        self.calls += 1
        errors = [(self.w @ sample["x"] - 1).square().sum() for sample in batch]
        return {"loss_a": torch.stack(errors).mean(), "loss_b": self.w.square().sum()}


def _samples(count: int) -> list[dict[str, Any]]:
    torch.manual_seed(4)
    return [{"x": torch.randn(2), "video_id": i, "frame_indices": [0]} for i in range(count)]


def _trained(batches: list[list[dict]], accumulate: int, clip: bool) -> tuple[_Mean, dict]:
    model = _Mean()
    kind = with_full_model_clipping(torch.optim.SGD, 0.2, 2.0) if clip else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=0.1, momentum=0.9)
    step = TrainStep(model, batches, optimizer, accumulate=accumulate)
    latest: dict = {}
    for iteration in range(len(batches) // accumulate):
        step.iter = iteration
        model.reset_schedule(iteration)
        with EventStorage(iteration) as storage:
            step.run_step()
        latest = {name: value for name, (value, _) in storage.latest().items()}
    return model, latest


@pytest.mark.parametrize("clip", [False, True])
def test_batches_of_one_size_give_the_update_of_one_large_batch(clip: bool) -> None:
    samples = _samples(12)
    small = [samples[i : i + 2] for i in range(0, 12, 2)]
    large = [samples[i : i + 6] for i in range(0, 12, 6)]
    model, latest = _trained(small, 3, clip)
    expected, wanted = _trained(large, 1, clip)
    torch.testing.assert_close(model.w, expected.w)
    for name in ("loss_a", "loss_b", "total_loss", *(["grad_norm"] if clip else [])):
        assert latest[name] == pytest.approx(wanted[name], rel=1e-5), name
    assert model.steps == [0, 0, 0, 1, 1, 1]


def test_a_bad_batch_is_named_alone() -> None:
    samples = _samples(4)
    samples[3]["x"] = torch.tensor([float("nan"), 0.0])
    step = TrainStep(
        model := _Mean(),
        [samples[:2], samples[2:]],
        torch.optim.SGD(model.parameters(), lr=0.1),
        accumulate=2,
    )
    step.iter = 0
    before = model.w.detach().clone()
    with EventStorage(0), pytest.raises(NumericError, match=r"videos 2 .*, 3 .*loss_a") as error:
        step.run_step()
    assert "videos 0" not in str(error.value)
    assert torch.equal(model.w, before)


def test_float16_scaler_steps_once_with_the_scaled_mean() -> None:
    samples = _samples(4)
    plain, _ = _trained([samples[:2], samples[2:]], 2, clip=False)
    model = _Mean()
    step = TrainStep(
        model,
        [samples[:2], samples[2:]],
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        accumulate=2,
    )
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    step.iter = 0
    with EventStorage(0):
        step.run_step()
    torch.testing.assert_close(model.w, plain.w)


def test_processes_exchange_gradients_after_the_last_batch_only() -> None:
    class Wrapped(nn.Module):
        def no_sync(self) -> str:
            return "no exchange"

    assert gradient_sync(Wrapped(), is_last=False) == "no exchange"
    assert gradient_sync(Wrapped(), is_last=True) != "no exchange"
    with gradient_sync(nn.Identity(), is_last=False):
        pass


@pytest.mark.slow
def test_resumed_training_takes_the_batches_that_follow(tiny_videos: Path, tmp_path: Path) -> None:
    """Three updates of two batches each, at once or with a break, end at the same weights."""

    def train(output: Path, steps: int, resume: bool = False) -> Trainer:
        options = ("SOLVER.ACCUMULATE", 2, "SOLVER.MAX_ITER", steps, "DATASETS.TEST", "()")
        trainer = make_trainer(tiny_videos, output, *options, resume=resume)
        trainer.train()
        return trainer

    whole = train(tmp_path / "whole", 3)
    train(tmp_path / "parts", 2)
    parts = train(tmp_path / "parts", 3, resume=True)
    assert parts.iter == whole.iter == 3
    assert parts.model.criterion._iter.item() == 3
    for name, value in whole.model.state_dict().items():
        assert torch.equal(parts.model.state_dict()[name], value), name
