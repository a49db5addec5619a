"""The average of the weights: its values, and what checkpoints and evaluations take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from maskfreevis_ext.engine import trainer as trainer_module
from maskfreevis_ext.engine.ema import copy_for_average, follow_weights, warm_decay
from maskfreevis_ext.engine.trainer import Trainer
from tests.helpers.trainers import make_trainer

NAME = "sem_seg_head.predictor.query_feat.weight"


def test_average_moves_by_the_decay_and_takes_the_buffers() -> None:
    model = nn.BatchNorm2d(2)
    average = copy_for_average(model)
    assert not average.training
    assert not any(p.requires_grad for p in average.parameters())
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(5.0)
    follow_weights(average, model, 0.75)
    torch.testing.assert_close(average.weight, torch.full((2,), 1.5))
    torch.testing.assert_close(average.running_mean, torch.full((2,), 5.0))
    follow_weights(average, model, 0.0)
    assert torch.equal(average.weight, model.weight)
    assert warm_decay(0.999, 0) == 0.1
    assert warm_decay(0.5, 100) == 0.5


def _train(videos: Path, output: Path, steps: int, *more: object, resume: bool = False) -> Trainer:
    options = ("SOLVER.EMA", 0.9, "SOLVER.MAX_ITER", steps, "DATASETS.TEST", "()", *more)
    trainer = make_trainer(videos, output, *options, resume=resume)
    trainer.train()
    return trainer


def _average(trainer: Trainer) -> dict[str, Tensor]:
    assert trainer.average is not None
    return trainer.average.model.state_dict()


def test_average_is_that_of_the_formula_and_is_what_checkpoints_hold(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    step = trainer_module.TrainStep.run_step

    def recorded(self: trainer_module.TrainStep) -> None:
        if not seen:
            seen.append(self.model.state_dict()[NAME].clone())
        step(self)
        seen.append(self.model.state_dict()[NAME].clone())

    monkeypatch.setattr(trainer_module.TrainStep, "run_step", recorded)
    trainer = _train(tiny_videos, tmp_path, 3)
    expected = seen[0]
    for i, weights in enumerate(seen[1:]):
        decay = min(0.9, (1 + i) / (10 + i))
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(_average(trainer)[NAME], expected)
    final = torch.load(tmp_path / "model_final.pth", weights_only=False)
    assert torch.equal(final["model"][NAME], _average(trainer)[NAME])
    assert not torch.equal(final["model"][NAME], trainer.model.state_dict()[NAME])
    plain = _load_as_weights(tiny_videos, tmp_path)
    assert torch.equal(plain.model.state_dict()[NAME], _average(trainer)[NAME])


def _load_as_weights(videos: Path, folder: Path) -> Trainer:
    words = ("MODEL.WEIGHTS", folder / "model_final.pth", "DATASETS.TEST", "()")
    return make_trainer(videos, folder / "other", *words)


@pytest.mark.slow
def test_resume_is_exact(tiny_videos: Path, tmp_path: Path) -> None:
    whole = _train(tiny_videos, tmp_path / "whole", 4)
    _train(tiny_videos, tmp_path / "parts", 2)
    parts = _train(tiny_videos, tmp_path / "parts", 4, resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(parts.model.state_dict()[name], value), name
    for name, value in _average(whole).items():
        assert torch.equal(_average(parts)[name], value), name


def test_training_may_start_to_average_when_it_is_resumed(
    tiny_videos: Path, tmp_path: Path
) -> None:
    first = _train(tiny_videos, tmp_path, 2, "SOLVER.EMA", 0.0)
    assert first.average is None
    second = _train(tiny_videos, tmp_path, 3, resume=True)
    old, new = first.model.state_dict()[NAME], second.model.state_dict()[NAME]
    torch.testing.assert_close(_average(second)[NAME], 0.25 * old + 0.75 * new)


def test_evaluation_takes_the_average(
    tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[nn.Module] = []

    def test(cls: type, cfg: object, model: nn.Module) -> dict:
        evaluated.append(model)
        return {}

    monkeypatch.setattr(Trainer, "test", classmethod(test))
    trainer = _train(tiny_videos, tmp_path, 2, "TEST.EVAL_PERIOD", 1)
    assert trainer.average is not None
    assert evaluated == [trainer.average.model] * 2
    assert trainer.evaluated_model is trainer.average.model
