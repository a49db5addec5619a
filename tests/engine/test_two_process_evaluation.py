"""Videos shared by two processes are evaluated to the results of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.engine import launch
from detectron2.modeling import build_model
from detectron2.utils import comm

from maskfreevis_ext.config import load_config
from maskfreevis_ext.data import register_from_config
from maskfreevis_ext.data.synthetic import SyntheticConfig, make_synthetic
from maskfreevis_ext.engine.trainer import Trainer
from tests.helpers.training import CONFIG, tiny_options

WINDOWS = ("TEST.WINDOW.SIZE", 3, "TEST.WINDOW.STRIDE", 2, "TEST.WINDOW.ABOVE", 4)


def _evaluate(options: list[str]) -> None:
    """Evaluate a model with the same random weights; rank 0 writes metrics.json."""
    torch.set_num_threads(1)
    cfg = load_config(CONFIG, options)
    register_from_config(cfg)
    torch.manual_seed(5)
    results = Trainer.test(cfg, build_model(cfg))
    if comm.is_main_process():
        Path(cfg.OUTPUT_DIR, "metrics.json").write_text(json.dumps(results))


@pytest.mark.slow
@pytest.mark.parametrize("heads", [False, True], ids=["plain", "heads"])
def test_two_processes_give_the_results_of_one(tmp_path, heads) -> None:
    """Three videos do not divide by two; long ones pass in windows."""
    videos = tmp_path / "videos"
    make_synthetic(
        str(videos),
        SyntheticConfig(num_train=1, num_val=3, num_frames=6, height=64, width=64),
    )
    more = [*WINDOWS]
    if heads:
        more += ["MODEL.MULTIMASK.ENABLED", True, "MODEL.SPATIAL_MASK.ENABLED", True]
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        names = {"train": f"shared_train_{heads}", "val": f"shared_val_{heads}"}
        words = tiny_options(videos, folder, *more, **names)
        launch(_evaluate, processes, dist_url="auto", args=(words,))

    one, two = (
        [(tmp_path / n / name).read_bytes() for name in ("inference/results.json", "metrics.json")]
        for n in "12"
    )
    results = json.loads(one[0])
    assert {entry["video_id"] for entry in results} == {1, 2, 3}
    assert any(any(entry["segmentations"]) for entry in results)
    assert one == two
