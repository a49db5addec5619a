"""Trainers, evaluation and the start of a job, with a model of a few parameters."""

from __future__ import annotations

import argparse
import json
import logging
import weakref
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import (
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    default_setup,
    hooks,
    launch,
)
from detectron2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException

from maskfreevis_ext import provider_info
from tests.helpers.training import own_loggers

DATASET = "provider_test_numbers"


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    with own_loggers():
        yield


class ProviderTestModel(nn.Module):
    """Learns the mean of its inputs."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1))

    def forward(self, batch: list[float]) -> dict[str, torch.Tensor] | list[float]:
        values = torch.tensor(batch)
        if not self.training:
            return (values - self.mean).tolist()
        return {"loss_square": (values - self.mean).square().mean()}


if "ProviderTestModel" not in META_ARCH_REGISTRY:
    META_ARCH_REGISTRY.register(ProviderTestModel)


class _MeanError(DatasetEvaluator):
    def reset(self) -> None:
        self.outputs: list[float] = []

    def process(self, inputs: list[float], outputs: list[float]) -> None:
        assert len(inputs) == len(outputs)
        self.outputs.extend(outputs)

    def evaluate(self) -> dict[str, dict[str, float]]:
        return {"numbers": {"error": sum(self.outputs) / len(self.outputs), "error-one": 0.0}}


class _Silent(_MeanError):
    def evaluate(self) -> None:
        return None


class _Trainer(DefaultTrainer):
    """Built like the project's own trainer: the base class gets no config."""

    def __init__(self, cfg: CfgNode) -> None:
        super(DefaultTrainer, self).__init__()
        model = self.build_model(cfg)
        optimizer = torch.optim.SGD(model.parameters(), lr=cfg.SOLVER.BASE_LR)
        self._trainer = SimpleTrainer(model, self.build_train_loader(cfg), optimizer)
        self.scheduler = build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter, self.max_iter, self.cfg = 0, cfg.SOLVER.MAX_ITER, cfg
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> list[list[float]]:
        return [[1.0, 3.0]] * 100

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> list[list[float]]:
        return [[2.0], [4.0, 6.0]]

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        return _MeanError()


def _cfg(folder: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "ProviderTestModel"
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATASETS.TEST = (DATASET,)
    cfg.OUTPUT_DIR = str(folder)
    cfg.SOLVER.MAX_ITER = 6
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.STEPS = (4,)
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.CHECKPOINT_PERIOD = 4
    cfg.TEST.EVAL_PERIOD = 5
    cfg.SEED = 11
    return cfg


def test_default_trainer_trains_saves_evaluates_and_resumes(tmp_path: Path) -> None:
    cfg = _cfg(tmp_path)
    trainer = _Trainer(cfg)
    assert [type(hook).__name__ for hook in trainer._hooks] == [
        "IterationTimer",
        "LRScheduler",
        "PeriodicCheckpointer",
        "EvalHook",
        "PeriodicWriter",
    ]
    trainer.train()
    final = trainer.model.mean.item()
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    rows.sort(key=lambda row: row["iteration"])
    # The evaluation in the course of training, the last step, and the evaluation after it.
    assert [row["iteration"] for row in rows] == [4, 5, 6]
    assert {"total_loss", "lr", "time", "data_time", "rank_data_time", "eta_seconds"} <= set(
        rows[1]
    )
    assert rows[2]["numbers/error"] == pytest.approx(4 - final, abs=1e-5)
    assert rows[1]["lr"] == pytest.approx(0.01)
    names = {path.name for path in tmp_path.glob("*.pth")}
    assert names == {"model_0000003.pth", "model_final.pth"}
    assert any(path.name.startswith("events.out.tfevents") for path in tmp_path.iterdir())

    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    resumed = _Trainer(cfg)
    resumed.checkpointer.resume_or_load("", resume=True)
    assert resumed.iter == 3
    resumed.start_iter = resumed.iter + 1
    resumed.train()
    assert resumed.model.mean.item() == final


def test_test_gives_the_results_of_the_only_data_set(tmp_path: Path) -> None:
    cfg = _cfg(tmp_path)
    model = build_model(cfg)
    results = _Trainer.test(cfg, model)
    assert results["numbers"]["error"] == pytest.approx(4.0)
    assert model.training, "the model is back in the mode in which it came"
    cfg.DATASETS.TEST = (DATASET, "another")
    assert sorted(_Trainer.test(cfg, model)) == sorted([DATASET, "another"])


def test_reference_world_size_scales_the_config(tmp_path: Path) -> None:
    cfg = _cfg(tmp_path)
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE = 16, 8
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.BASE_LR = 5000, (4000,), 0.1
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD = 1000, 500
    cfg.freeze()
    scaled = DefaultTrainer.auto_scale_workers(cfg, 16)
    solver = scaled.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.MAX_ITER) == (32, 0.2, 2500)
    assert (solver.STEPS, solver.CHECKPOINT_PERIOD) == ((2000,), 500)
    assert scaled.TEST.EVAL_PERIOD == 250
    assert scaled.is_frozen()
    assert cfg.SOLVER.IMS_PER_BATCH == 16


class _Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch: float) -> dict[str, torch.Tensor]:
        return {"loss_good": self.weight.sum(), "loss_bad": self.weight.sum() * batch}


class _Last(HookBase):
    reached: int | None = None

    def after_train(self) -> None:
        self.reached = self.trainer.iter


def test_infinite_loss_stops_the_training_and_is_named() -> None:
    model = _Failing()
    trainer = SimpleTrainer(
        model, [1.0, float("nan"), 1.0], torch.optim.SGD(model.parameters(), 0.1)
    )
    last = _Last()
    trainer.register_hooks([last])
    with pytest.raises(FloatingPointError, match=r"(?s)iteration=1.*loss_bad"):
        trainer.train(0, 3)
    assert last.reached == 1, "hooks end, and see that the training did not reach its end"
    assert torch.isfinite(model.weight).all()


def test_evaluation_result_that_is_no_number_is_refused() -> None:
    model = _Failing()
    trainer = SimpleTrainer(model, [1.0] * 3, torch.optim.SGD(model.parameters(), 0.1))
    trainer.register_hooks([hooks.EvalHook(1, lambda: {"segm": {"AP": "high"}})])
    with pytest.raises(ValueError, match="segm/AP"):
        trainer.train(0, 3)


@pytest.fixture
def messages() -> list[str]:
    """What Detectron2's loggers say."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("detectron2")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_inference_logs_speed_and_returns_results(messages: list[str]) -> None:
    loader = [[float(index)] for index in range(8)]
    results = inference_on_dataset(lambda batch: batch, loader, _MeanError())
    assert results["numbers"]["error"] == 3.5
    assert messages[0] == "Start inference on 8 batches"
    assert any(line.startswith("Total inference time: ") for line in messages)
    assert any(line.startswith("Total inference pure compute time: ") for line in messages)
    assert inference_on_dataset(lambda batch: batch, loader, _Silent()) == {}


def test_results_are_logged_without_those_per_class(messages: list[str]) -> None:
    print_csv_format({"segm": {"AP": 1.23456, "AP-cat": 2.0, "AP50": 3.0}, "speed": 4})
    assert messages == [
        "copypaste: Task: segm",
        "copypaste: AP,AP50",
        "copypaste: 1.2346,3.0000",
        "copypaste: speed=4",
    ]


def test_unexpected_results_end_the_process(messages: list[str]) -> None:
    cfg = get_cfg()
    assert verify_results(cfg, {})
    cfg.TEST.EXPECTED_RESULTS = [["segm", "AP", 10.0, 0.5]]
    assert verify_results(cfg, {"segm": {"AP": 10.4}})
    for wrong in (10.6, float("nan"), None):
        with pytest.raises(SystemExit) as error:
            verify_results(cfg, {"segm": {} if wrong is None else {"AP": wrong}})
        assert error.value.code == 1


def test_default_setup_seeds_and_writes_config_and_log(tmp_path: Path) -> None:
    cfg = _cfg(tmp_path / "out")
    config_file = tmp_path / "given.yaml"
    config_file.write_text("SEED: 11\n")
    default_setup(cfg, argparse.Namespace(config_file=str(config_file), eval_only=False))
    first = torch.rand(1)
    torch.manual_seed(11)
    assert torch.equal(first, torch.rand(1))
    again = get_cfg()
    again.merge_from_file(str(tmp_path / "out" / "config.yaml"), allow_unsafe=False)
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
    log = (tmp_path / "out" / "log.txt").read_text()
    for part in ("World size: 1", "Environment info", "given.yaml", "Full config saved to"):
        assert part in log


def _work(folder: str) -> None:
    rank = comm.get_rank()
    seed = comm.shared_random_seed()
    gathered = comm.gather({"rank": rank, "seed": seed})
    everyone = comm.all_gather(rank)
    comm.synchronize()
    answer = {
        "gathered": gathered,
        "everyone": everyone,
        "local": comm.get_local_rank(),
        "main": comm.is_main_process(),
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(answer))


@pytest.mark.slow
def test_processes_talk_to_each_other(tmp_path: Path) -> None:
    # The real one leaves the process group to the end of the interpreter, where torch's threads
    # abort it now and then; the work is done by then.
    may_abort = (
        suppress(ProcessExitedException) if provider_info().name == "real" else nullcontext()
    )
    with may_abort:
        launch(_work, 2, dist_url="auto", args=(str(tmp_path),), timeout=timedelta(minutes=10))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert [entry["rank"] for entry in first["gathered"]] == [0, 1]
    assert len({entry["seed"] for entry in first["gathered"]}) == 1
    assert second["gathered"] == []
    assert first["everyone"] == second["everyone"] == [0, 1]
    assert (first["local"], second["local"]) == (0, 1)
    assert (first["main"], second["main"]) == (True, False)


def test_single_process_is_called_directly() -> None:
    seen: list[int] = []
    launch(seen.append, 1, args=(5,))
    assert seen == [5]
    assert comm.get_world_size() == 1
    assert comm.gather("x") == ["x"]
