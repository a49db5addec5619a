"""The trainer as a whole, on generated videos."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng

from maskfreevis_ext.class_names import class_names_of
from maskfreevis_ext.config import load_config
from maskfreevis_ext.engine.train_step import TrainStep
from maskfreevis_ext.engine.trainer import Trainer, reset_iteration_counter
from maskfreevis_ext.errors import ConfigError, DataError, NumericError
from maskfreevis_ext.safe_load import _foreign_names
from tests.helpers.killed_training import figures as _rows
from tests.helpers.killed_training import weights_hash
from tests.helpers.training import CONFIG, VAL, tiny_options


def _cfg(videos: Path, output: Path, *more: object):
    return load_config(CONFIG, tiny_options(videos, output, *more))


def _train(cfg, *, resume: bool = False) -> Trainer:
    seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def trained(tiny_videos, tmp_path_factory):
    """A training of 4 iterations with a checkpoint after the second."""
    return _train(_cfg(tiny_videos, tmp_path_factory.mktemp("trained"), "VIS_PERIOD", 2))


def _metrics(trainer: Trainer) -> list[dict]:
    lines = Path(trainer.cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_training_writes_losses_rate_and_evaluation(trained):
    metrics = {name: value for line in _metrics(trained) for name, value in line.items()}
    for name in ("total_loss", "loss_ce", "loss_mask_proj", "loss_bound", "lr", "grad_norm"):
        assert math.isfinite(metrics[name]), name
    assert metrics["iteration"] == 4
    # After the training, without EVAL_PERIOD.
    assert any(name.endswith("AP50") for name in metrics)
    assert Path(trained.cfg.OUTPUT_DIR, "inference", "results.json").is_file()


def test_training_writes_checkpoints_that_hold_no_code(trained):
    folder = Path(trained.cfg.OUTPUT_DIR)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    data = torch.load(folder / "model_0000001.pth", weights_only=True)
    assert _foreign_names(str(folder / "model_0000001.pth")) == []  # tensors and plain values
    assert data["iteration"] == 1
    assert data["trainer"]["seed"] == 1
    assert data["class_names"] == class_names_of(trained.model)
    assert set(data["class_names"]) == {"circle", "triangle", "star"}
    manifest = json.loads((folder / "checkpoints.json").read_text())
    names = ["model_0000001.pth", "model_0000003.pth", "model_final.pth"]
    assert list(manifest["checkpoints"]) == names
    assert [run["config"] for run in manifest["runs"].values()] == [trained.cfg.dump()]


def test_training_writes_pictures_for_tensorboard(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(trained.cfg.OUTPUT_DIR)
    events.Reload()
    names = events.Tags()["images"]
    assert f"predictions/{VAL}/frame_0" in names
    assert {"total_loss", "lr"} <= set(events.Tags()["scalars"])


def test_drawing_does_not_change_the_training(trained, tiny_videos, tmp_path):
    """Neither the weights nor the random numbers know whether pictures were drawn."""
    other = _train(_cfg(tiny_videos, tmp_path, "VIS_PERIOD", 0))
    for name, value in other.model.state_dict().items():
        assert torch.equal(value, trained.model.state_dict()[name]), name


def test_hooks_of_all_processes_stand_in_the_same_order(tiny_videos, tmp_path, monkeypatch):
    """PreciseBN and StopAtStep both exchange data with the other processes."""
    options = ("TEST.PRECISE_BN.ENABLED", True, "MODEL.RESNETS.NORM", "BN", "VIS_PERIOD", 1)
    trainer = Trainer(_cfg(tiny_videos, tmp_path, *options, "MODEL.BACKBONE.FREEZE_AT", 0))
    orders = []
    for is_main in (True, False):
        monkeypatch.setattr(
            "detectron2.utils.comm.is_main_process", lambda is_main=is_main: is_main
        )
        orders.append([type(h).__name__ for h in trainer.build_hooks() if h is not None])
    main, other = orders
    assert main == [
        *("IterationTimer", "LRScheduler", "PreciseBN", "StopAtStep"),
        *("PeriodicCheckpointer", "EvalHook", "DrawPredictions", "PeriodicWriter", "WriteReport"),
    ]
    own = ("PeriodicCheckpointer", "DrawPredictions", "PeriodicWriter", "WriteReport")
    assert other == [name for name in main if name not in own]


def test_log_has_the_main_losses_and_metrics_have_all(tiny_videos, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="maskfreevis_ext"):
        trainer = _train(_cfg(tiny_videos, tmp_path, "DATASETS.TEST", "()"))
    lines = [r.message for r in caplog.records if r.name == "maskfreevis_ext.engine.console"]
    assert len(lines) == 1
    for part in ("iter: 4/4  eta: 0:00:00  ", " s/it ", "lr: ", "total_loss: ", "loss_ce: "):
        assert part in lines[0]
    assert "loss_ce_0" not in lines[0]
    assert "loss_dice" not in lines[0]  # zero, as there are no masks
    last = _metrics(trainer)[-1]
    assert {"loss_ce_0", "loss_dice", "loss_dice_0", "eta_seconds", "lr", "time"} <= set(last)


def test_trainer_refuses_float16_on_the_cpu_by_name(tiny_videos, tmp_path):
    cfg = _cfg(tiny_videos, tmp_path).clone()
    cfg.defrost()
    cfg.SOLVER.AMP.ENABLED = True  # load_config would have switched it off, with a warning
    with pytest.raises(ConfigError, match=r"SOLVER\.AMP\.DTYPE.*MODEL\.DEVICE cpu.*got float16"):
        Trainer(cfg)


@pytest.mark.parametrize("is_made_for_it", [False, True])
def test_trainer_uses_bfloat16_where_the_processor_has_it(
    tiny_videos, tmp_path, monkeypatch, is_made_for_it
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": is_made_for_it})
    amp = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16", "SOLVER.MAX_ITER", 1)
    trainer = _train(_cfg(tiny_videos, tmp_path, "DATASETS.TEST", "()", *amp))
    assert trainer.cfg.SOLVER.AMP.ENABLED == is_made_for_it
    assert trainer._trainer._amp_dtype is (torch.bfloat16 if is_made_for_it else None)
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_model_trains_in_mixed_precision(tiny_videos, tmp_path, dtype):
    """On the CPU, which computes in both types, though the command line does not offer float16."""
    cfg = _cfg(tiny_videos, tmp_path, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 2)
    seed_all_rng(1)
    trainer = Trainer(cfg)
    trainer._trainer = TrainStep(trainer.model, trainer.data_loader, trainer.optimizer, dtype)
    before = trainer.model.sem_seg_head.predictor.query_feat.weight.detach().clone()
    trainer.train()
    metrics = _metrics(trainer)[-1]
    assert all(math.isfinite(value) for name, value in metrics.items() if "loss" in name)
    if dtype is torch.bfloat16:  # float16 may leave out the first steps
        assert not torch.equal(before, trainer.model.sem_seg_head.predictor.query_feat.weight)


def test_resume_goes_on_with_iteration_optimizer_and_rate(tiny_videos, tmp_path):
    options = ["SOLVER.STEPS", "(3,)", "SOLVER.MAX_ITER"]
    first = _train(_cfg(tiny_videos, tmp_path, *options, 2))
    assert first.optimizer.param_groups[0]["lr"] == first.cfg.SOLVER.BASE_LR

    second = Trainer(_cfg(tiny_videos, tmp_path, *options, 6))
    second.resume_or_load(resume=True)
    assert (second.start_iter, second.checkpointer.resumed) == (2, True)
    assert second.model.criterion._iter.item() == 2
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    moments = second.optimizer.state_dict()["state"]
    for index, expected in first.optimizer.state_dict()["state"].items():
        assert torch.equal(moments[index]["exp_avg"], expected["exp_avg"])
    second.train()
    assert second.iter == 6
    assert [line["iteration"] for line in _metrics(second)] == [1, 2, 5, 6]
    assert second.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * first.cfg.SOLVER.BASE_LR)


def test_finished_training_says_that_there_is_nothing_to_do(tiny_videos, tmp_path, caplog):
    options = ["SOLVER.MAX_ITER", 1]
    _train(_cfg(tiny_videos, tmp_path, *options))
    before = (tmp_path / "metrics.json").read_text()
    with caplog.at_level(logging.INFO):
        again = _train(_cfg(tiny_videos, tmp_path, *options), resume=True)
    assert again.start_iter == 1
    said = [r.message for r in caplog.records if "Nothing to do" in r.message]
    assert len(said) == 1
    assert "1 of SOLVER.MAX_ITER 1 iterations" in said[0]
    assert (tmp_path / "metrics.json").read_text() == before


def test_what_a_kill_after_the_last_step_cut_off_is_made_up_for(tiny_videos, tmp_path):
    """The last checkpoint and the evaluation; both are as if there had been no kill."""
    options = ["SOLVER.MAX_ITER", 2]
    _train(_cfg(tiny_videos, tmp_path, *options))
    rows, weights = _rows(tmp_path), weights_hash(tmp_path)
    assert "segm/AP" in rows[-1]
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    lines = (tmp_path / "metrics.json").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.json").write_text(lines[0] + lines[1][:20])  # a cut row
    _train(_cfg(tiny_videos, tmp_path, *options), resume=True)
    assert _rows(tmp_path) == rows
    assert weights_hash(tmp_path) == weights


def _interrupt(trainer: Trainer, step: int) -> None:
    """Train, but end as by a kill in the middle of a step; hooks behind it do not run."""
    run_step = trainer.run_step

    def killed() -> None:
        if trainer.iter == step:
            trainer._hooks.clear()
            raise KeyboardInterrupt
        run_step()

    trainer.run_step = killed
    with pytest.raises(KeyboardInterrupt):
        trainer.train()


_EXACT = {
    "plain": (),
    "precise batch norm": (
        *("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 1, "TEST.EVAL_PERIOD", 1),
        *("MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", 0, "DATASETS.TEST", "()"),
    ),
    "self-training": (
        *("MODEL.MASKFREE.SELF_TRAINING.ENABLED", True),
        *("MODEL.MASKFREE.SELF_TRAINING.START_ITER", 1, "DATASETS.TEST", "()"),
    ),
    "averaged weights": ("SOLVER.EMA", 0.9, "DATASETS.TEST", "()"),
    "several batches a step": ("SOLVER.ACCUMULATE", 2, "DATASETS.TEST", "()"),
    "heads and dropout": (
        *("MODEL.MULTIMASK.ENABLED", True, "MODEL.SPATIAL_MASK.ENABLED", True),
        *("MODEL.MASK_FORMER.DROPOUT", 0.1, "DATASETS.TEST", "()"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _EXACT)
def test_weights_after_a_kill_are_those_without_it(tiny_videos, tmp_path, name):
    """Stopped in step 3, it goes on from the checkpoint after step 1, in another random state."""
    cfgs = [_cfg(tiny_videos, tmp_path / folder, *_EXACT[name]) for folder in "ab"]
    _train(cfgs[0])
    seed_all_rng(1)
    trainer = Trainer(cfgs[1])
    trainer.resume_or_load(resume=True)
    _interrupt(trainer, 3)
    seed_all_rng(99)
    trainer = Trainer(cfgs[1])
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2
    trainer.train()
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "b")
    assert _rows(tmp_path / "a") == _rows(tmp_path / "b")


def test_a_seed_that_was_drawn_is_kept_over_a_resume(tiny_videos, tmp_path):
    options = ["SEED", -1, "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 1]
    first = _train(_cfg(tiny_videos, tmp_path, *options))
    second = Trainer(_cfg(tiny_videos, tmp_path, *options))
    second.resume_or_load(resume=True)
    assert second.seed == first.seed == second.batches.seed


def test_first_cause_of_an_end_is_what_is_reported(tiny_videos, tmp_path, caplog):
    """An error of a hook at the end does not stand in its place."""
    trainer = Trainer(_cfg(tiny_videos, tmp_path))

    class Fails(HookBase):
        def after_step(self):
            raise OSError("the first")

        def after_train(self):
            raise OSError("the second")

    trainer.register_hooks([Fails()])
    with pytest.raises(OSError, match="the first"):
        trainer.train()
    assert "Fails, after the error: OSError: the second" in caplog.text


def test_weights_of_another_training_start_at_iteration_0(trained, tiny_videos, tmp_path):
    weights = Path(trained.cfg.OUTPUT_DIR, "model_final.pth")
    saved = torch.load(weights, weights_only=True)["model"]
    assert saved["criterion._iter"].item() == 4
    trainer = Trainer(_cfg(tiny_videos, tmp_path, "MODEL.WEIGHTS", weights))
    trainer.resume_or_load(resume=True)  # nothing to go on from in the new folder
    assert trainer.start_iter == 0
    assert trainer.model.criterion._iter.item() == 0
    assert torch.equal(trainer.model.state_dict()["sem_seg_head.predictor.query_feat.weight"],
                       saved["sem_seg_head.predictor.query_feat.weight"])  # fmt: skip


def test_schedules_of_a_wrapped_model_are_reset():
    class Counting(torch.nn.Module):
        def reset_schedule(self, step):
            self.step = step

    wrapper = torch.nn.Module()
    wrapper.module = torch.nn.Sequential(Counting(), torch.nn.Sequential(Counting()))
    reset_iteration_counter(wrapper, 5)
    assert wrapper.module[0].step == wrapper.module[1][0].step == 5
    reset_iteration_counter(torch.nn.Linear(1, 1), 5)


@pytest.mark.parametrize(
    ("supervision", "used", "unused"),
    [("mask", "loss_dice", "loss_mask_proj"), ("box", "loss_mask_proj", "loss_dice")],
)
def test_supervision_decides_which_losses_learn(tiny_videos, tmp_path, supervision, used, unused):
    """The test set has masks; from boxes, they are not looked at."""
    options = ["DATASETS.TRAIN", f"('{VAL}',)", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 1]
    trainer = _train(_cfg(tiny_videos, tmp_path, *options, "INPUT.SUPERVISION", supervision))
    metrics = _metrics(trainer)[0]
    assert metrics[used] > 0
    assert metrics[unused] == 0


def test_wrong_number_of_classes_is_found_before_training(tiny_videos, tmp_path):
    cfg = _cfg(tiny_videos, tmp_path, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5)
    with pytest.raises(ConfigError, match=r"NUM_CLASSES.* 3.* 5"):
        Trainer(cfg)


def test_missing_test_set_is_found_before_training(tiny_videos, tmp_path):
    cfg = _cfg(tiny_videos, tmp_path, "DATASETS.TEST", "('ytvis_2019_val',)")
    with pytest.raises(ConfigError, match=r"DATASETS\.TEST.*ytvis_2019_val"):
        Trainer(cfg)


def test_training_without_a_test_set(tiny_videos, tmp_path):
    options = ["DATASETS.TEST", "()", "SOLVER.MAX_ITER", 1, "LOG.REPORT", "False"]
    trainer = _train(_cfg(tiny_videos, tmp_path, *options))
    assert not any("AP" in name for line in _metrics(trainer) for name in line)
    assert not (tmp_path / "report.html").exists()


def test_evaluation_while_training_on_two_sets(tiny_videos, tmp_path):
    options = tiny_options(tiny_videos, tmp_path)
    entries = json.loads(options[options.index("INPUT.DATASETS") + 1].replace("'", '"'))
    entries.append(["tiny_val_again", *entries[1][1:]])
    more = ["INPUT.DATASETS", entries, "DATASETS.TEST", f"('{VAL}', 'tiny_val_again')"]
    more += ["TEST.EVAL_PERIOD", 1, "SOLVER.MAX_ITER", 2]
    more += ["TEST.EVALUATORS", f"['ytvis_ap', '{VAL}:hota']"]
    trainer = _train(_cfg(tiny_videos, tmp_path, *more))
    tracked = {name for line in _metrics(trainer) for name in line if name.endswith("/HOTA")}
    assert tracked == {f"{VAL}/hota/HOTA"}
    evaluated = [line["iteration"] for line in _metrics(trainer) if f"{VAL}/segm/AP" in line]
    assert evaluated == [0, 2]
    for name in (VAL, "tiny_val_again"):
        assert (tmp_path / "inference" / name / "results.json").is_file()
    page = (tmp_path / "report.html").read_text()
    assert page.count("<h2>Evaluation on tiny_val") == 2
    assert 'aria-label="Scores (%)"' in page  # of both evaluations
    assert "2 of 2 iterations" in page


def test_best_weights_are_kept(tiny_videos, tmp_path, monkeypatch):
    scores = iter([10.0, float("nan"), 9.0])

    def score(cls: type, cfg: object, model: object) -> dict:
        return {"segm": {"AP": next(scores)}}

    monkeypatch.setattr(Trainer, "test", classmethod(score))
    options = ["TEST.EVAL_PERIOD", 1, "TEST.BEST_METRIC", "segm/AP", "LOG.REPORT", "False"]
    first = _train(_cfg(tiny_videos, tmp_path, *options, "SOLVER.MAX_ITER", 3))
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert (best["iteration"], best["metric"], best["value"]) == (0, "segm/AP", 10.0)
    scores = iter([9.0, 9.5, 12.0])  # the first of step 3, which was the last one before
    again = _train(_cfg(tiny_videos, tmp_path, *options, "SOLVER.MAX_ITER", 5), resume=True)
    assert (first.iter, again.iter) == (3, 5)
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert (best["iteration"], best["value"]) == (4, 12.0)
    for name, value in again.model.state_dict().items():
        assert torch.equal(best["model"][name], value), name


def test_evaluation_that_fails_costs_no_step(tiny_videos, tmp_path, monkeypatch):
    def fail(cls: type, cfg: object, model: object) -> None:
        raise DataError("a frame turned bad")

    monkeypatch.setattr(Trainer, "test", classmethod(fail))
    options = ["TEST.EVAL_PERIOD", 3, "SOLVER.CHECKPOINT_PERIOD", 100]
    with pytest.raises(DataError, match="a frame turned bad"):
        _train(_cfg(tiny_videos, tmp_path, *options))
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"
    trainer = Trainer(_cfg(tiny_videos, tmp_path, *options))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 3


def test_nan_ends_the_training_without_a_traceback_in_the_log(tiny_videos, tmp_path, caplog):
    trainer = Trainer(_cfg(tiny_videos, tmp_path))
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    bad = trainer.model.sem_seg_head.predictor.class_embed.bias
    bad.data[0] = float("nan")
    with caplog.at_level(logging.INFO), pytest.raises((NumericError, ValueError)) as error:
        trainer.train()
    assert isinstance(error.value, NumericError)
    assert not any(r.exc_info for r in caplog.records)
    for name, value in trainer.model.state_dict().items():
        if "class_embed.bias" not in name and "_iter" not in name:
            assert torch.equal(value, before[name]), name
    assert not list(tmp_path.glob("model_*.pth"))


def test_schedule_of_the_spatial_mask_starts_anew_with_a_new_training(tiny_videos, tmp_path):
    options = ["MODEL.SPATIAL_MASK.ENABLED", "True", "SOLVER.MAX_ITER", 2]
    trained = _train(_cfg(tiny_videos, tmp_path / "first", *options))
    steps = trained.model.sem_seg_head.predictor.spatial_bias.head.steps
    assert steps.item() == 2
    weights = str(tmp_path / "first" / "model_final.pth")
    second = Trainer(_cfg(tiny_videos, tmp_path / "second", *options, "MODEL.WEIGHTS", weights))
    second.resume_or_load(resume=False)
    assert second.model.sem_seg_head.predictor.spatial_bias.head.steps.item() == 0
