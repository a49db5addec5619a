"""A finished grid whose runs were written by hand, so that no training is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.report import save_experiment
from experiments.runs import Run, plan_runs
from experiments.spec import Experiment, parse_experiment
from maskfreevis_ext.config import load_config
from tests.helpers.training import CONFIG
from tests.helpers.videos import plain_content, rectangle, write_json

#: AP of each variant and seed.
AP = {"masks": (60.0, 70.0), "boxes": (50.0, 54.0)}


def write_finished(run: Run, ap: float, ground_truth: str, content: dict) -> None:
    """What a training that ended leaves in its folder."""
    run.folder.mkdir(parents=True)
    run.write_record(True, 120.0)
    supervision = "mask" if run.variant.name == "masks" else "box"
    datasets = [["train_x", "train.json", "images"], ["val_x", ground_truth, "images"]]
    options = ["INPUT.DATASETS", str(datasets), "INPUT.SUPERVISION", supervision]
    options += ["DATASETS.TEST", "('val_x',)"]
    (run.folder / "config.yaml").write_text(load_config(CONFIG, options).dump())
    lines = [
        {"iteration": 19, "total_loss": 9.0, "loss_ce": 2.0, "loss_ce_0": 3.0, "loss_dice": 0.0},
        {"iteration": 19, "segm/AP": ap / 2},
        {"iteration": 39, "total_loss": 6.0, "loss_ce": 1.0, "loss_ce_0": 2.0, "loss_dice": 0.0},
        {"iteration": 40, "segm/AP": ap, "segm/AP50": ap + 10, "segm/AR10": float("nan")},
    ]
    (run.folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run.folder / "inference").mkdir()
    results = [
        {
            "video_id": 1,
            "category_id": 3,
            "score": 0.5,
            # one of the two objects is found, in all frames
            "segmentations": [rectangle(2 + t, 3, 8, 6) for t in range(4)],
        }
    ]
    write_json(run.folder / "inference", results, "results.json")


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Experiment, list[Run], Path]:
    """A grid of two variants and three seeds, of which two are finished."""
    variants = [{"name": "masks", "title": "all | masks"}, {"name": "boxes"}]
    content = {"name": "by_hand", "title": "By <hand>", "config": CONFIG, "variants": variants}
    experiment = parse_experiment({**content, "seeds": [1, 2, 3], "reference": "masks"}, "here")
    folder = tmp_path / "by_hand"
    truth = plain_content((4,), masks=True)
    ground_truth = write_json(tmp_path, truth, "val.json")
    runs = plan_runs(experiment, folder, [40, 40])
    for run in runs:
        if run.seed < 3:
            write_finished(run, AP[run.variant.name][run.seed - 1], ground_truth, truth)
    save_experiment(experiment, [40, 40], folder)
    return experiment, runs, folder
