"""Two processes train to the losses and weights of one process with twice the batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase, launch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from maskfreevis_ext.config import load_config
from maskfreevis_ext.data import register_from_config
from maskfreevis_ext.engine.trainer import Trainer
from tests.helpers.training import CONFIG, tiny_options

#: Clips that are the whole video, so that no random number decides what a process sees.
FIXED_CLIPS = (
    *("INPUT.SAMPLING_FRAME_NUM", 4, "INPUT.SAMPLING_FRAME_RANGE", 4),
    *("INPUT.SAMPLING_FRAME_SHUFFLE", False, "INPUT.RANDOM_FLIP", "none"),
    *("MODEL.MASKFREE.PAIRWISE.WARMUP_ITERS", 0, "MODEL.MASKFREE.TEMPORAL.WARMUP_ITERS", 0),
    *("SOLVER.CHECKPOINT_PERIOD", 100, "DATASETS.TEST", "()"),
)
HEADS = (
    *("MODEL.MULTIMASK.ENABLED", True, "MODEL.SPATIAL_MASK.ENABLED", True),
    *("MODEL.SPATIAL_MASK.LOSS.BOX_MODE", "weak"),
)


class _Record(HookBase):
    """Keeps the losses of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        losses = {name: value for name, (value, _) in latest.items() if "loss" in name}
        self.steps.append(losses)


def _train(options: list[str], dtype: torch.dtype) -> None:
    """Train; the main process writes losses.json and model_final.pth to OUTPUT_DIR."""
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype)
    cfg = load_config(CONFIG, options)
    register_from_config(cfg)
    seed_all_rng(cfg.SEED + comm.get_rank())
    trainer = Trainer(cfg)
    record = _Record()
    trainer.register_hooks([record])
    trainer.train()
    if comm.is_main_process():
        Path(cfg.OUTPUT_DIR, "losses.json").write_text(json.dumps(record.steps))


@pytest.fixture
def _usual_dtype() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.usefixtures("_usual_dtype")
@pytest.mark.parametrize(
    ("dtype", "steps", "tolerance", "options"),
    [
        (torch.float32, 3, 1e-4, ()),
        # In float32 rounding grows from step to step: it decides which patches are the k nearest
        # and which cells a query may look at. In float64 it stays too small for that.
        (torch.float64, 6, 1e-6, HEADS),
    ],
    ids=["float32", "float64 with both heads"],
)
def test_two_processes_train_to_the_losses_of_one_with_twice_the_batch(
    tiny_videos, tmp_path, dtype, steps, tolerance, options
):
    """Both read the same data set through the usual loader, with a batch of 2 in all."""
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        words = tiny_options(tiny_videos, folder, *FIXED_CLIPS, *options, "SOLVER.MAX_ITER", steps)
        launch(_train, processes, dist_url="auto", args=(words, dtype))

    one, two = (json.loads((tmp_path / n / "losses.json").read_text()) for n in "12")
    assert len(one) == len(two) == steps
    for step, (expected, got) in enumerate(zip(one, two, strict=True)):
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            assert got[name] == pytest.approx(value, rel=tolerance, abs=tolerance), (step, name)
    assert one[0]["total_loss"] != one[-1]["total_loss"]
    first, second = (
        torch.load(tmp_path / n / "model_final.pth", weights_only=True)["model"] for n in "12"
    )
    # As a whole: AdamW moves a weight whose gradient is nearly zero by its sign, which is rounding.
    difference = sum(float((second[name] - value).square().sum()) for name, value in first.items())
    assert difference < tolerance**2 * sum(float(value.square().sum()) for value in first.values())
