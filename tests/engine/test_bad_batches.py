"""Batches that give NaN: kept, replayed, left out within bounds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from maskfreevis_ext.engine.bad_batches import MAX_SKIPPED
from maskfreevis_ext.engine.replay import read_bad_batch, replay
from maskfreevis_ext.engine.trainer import Trainer
from maskfreevis_ext.errors import CheckpointError, NumericError
from tests.helpers.trainers import make_trainer
from tests.helpers.training import CONFIG, ROOT, tiny_options


def _trainer(videos: Path, output: Path, bad: set[int], *more: object) -> Trainer:
    """A training of 4 iterations; in those of ``bad`` the frames are NaN."""
    options = ("DATASETS.TEST", "()", "SOLVER.MAX_ITER", 4, *more)
    trainer = make_trainer(videos, output, *options)
    loader = trainer._trainer.data_loader

    class Spoiled:
        def __iter__(self):
            for index, batch in enumerate(loader):
                for sample in batch if index in bad else []:
                    sample["image"] = [frame.float() * torch.nan for frame in sample["image"]]
                yield batch

    trainer._trainer.data_loader = Spoiled()
    return trainer


def test_bad_batch_is_kept_and_replayed(tiny_videos, tmp_path, capsys) -> None:
    trainer = _trainer(tiny_videos, tmp_path, {2})
    with pytest.raises(NumericError, match=r"Iteration 2.*replay_batch\.py --batch .*0000002\.pt"):
        trainer.train()
    path = str(tmp_path / "bad_batch_0000002.pt")
    content = read_bad_batch(path)
    assert content["iteration"] == 2
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(content["model"][name], value), name
    result = replay(trainer.cfg, content, path)
    assert not result.is_finite
    assert result.outputs[0].startswith("backbone")
    spec = importlib.util.spec_from_file_location("replay", ROOT / "tools" / "replay_batch.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    options = tiny_options(tiny_videos, tmp_path / "other")
    tool.main(["--config-file", CONFIG, "--batch", path, "--opts", *options])
    said = capsys.readouterr().out
    assert "in the training: Iteration 2" in said
    assert "NaN" in said


def test_replay_of_a_good_batch_gives_its_losses(tiny_videos, tmp_path) -> None:
    trainer = _trainer(tiny_videos, tmp_path, set(), "SOLVER.ACCUMULATE", 2)
    losses: list[float] = []
    step = trainer._trainer._backward

    def fail_after(data: list) -> dict[str, float]:
        losses.append(sum(step(data).values()))
        if len(losses) == 4:
            raise NumericError("made up")
        return {}

    trainer._trainer._backward = fail_after
    trainer._trainer._write_unweighted = lambda values: None
    with pytest.raises(NumericError, match="made up"):
        trainer.train()
    path = str(tmp_path / "bad_batch_0000001.pt")
    result = replay(trainer.cfg, read_bad_batch(path), path)
    assert result.is_finite
    got = [sum(one.values()) for one in result.losses]
    assert got == pytest.approx(losses[2:], rel=1e-5)


def test_steps_are_left_out_and_counted(tiny_videos, tmp_path) -> None:
    trainer = _trainer(tiny_videos, tmp_path, {1, 2}, "SOLVER.ON_NONFINITE", "skip")
    trainer.train()
    assert trainer.bad_batches.state_dict() == {"count": 2, "in_a_row": 0}
    assert all(v.isfinite().all() for v in trainer.model.state_dict().values())
    assert trainer.model.criterion._iter.item() == 4  # warm-ups count on
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [row["skipped_steps"] for row in rows if "skipped_steps" in row] == [2]
    assert len(list(tmp_path.glob("bad_batch_*"))) == 1
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["trainer"]["bad_batches"]["count"] == 2


def test_too_many_steps_end_the_training(tiny_videos, tmp_path) -> None:
    more = ("SOLVER.ON_NONFINITE", "skip", "SOLVER.MAX_ITER", 40)
    trainer = _trainer(tiny_videos, tmp_path, set(range(40)), *more)
    with pytest.raises(NumericError, match=f"{MAX_SKIPPED + 1} steps were left out"):
        trainer.train()


def test_other_files_are_no_batches(tmp_path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"model": {}}, path)
    with pytest.raises(CheckpointError, match=r"weights\.pth.*bad_batch_\*\.pt"):
        read_bad_batch(str(path))
