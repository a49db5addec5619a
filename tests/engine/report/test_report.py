"""The report of a run: what is on the page, and that a fault of it ends nothing."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from maskfreevis_ext.data import register_from_config
from maskfreevis_ext.engine.report import FILE_NAME, try_report, write_report
from tests.helpers.videos import data_cfg, plain_content, unique_name, write_frames, write_json

RESULTS = {"segm": {"AP": 47.25, "APs": float("nan"), "AP-cat": 20.0, "AP-dog": 74.5}}


@pytest.fixture
def cfg(tmp_path) -> CfgNode:
    content = plain_content((4, 3), masks=True)
    entry = [unique_name("report"), write_json(tmp_path, content), write_frames(tmp_path, content)]
    output = tmp_path / "run<1>"
    config = data_cfg(
        *("INPUT.DATASETS", [entry], "DATASETS.TEST", (entry[0],), "OUTPUT_DIR", str(output))
    )
    register_from_config(config)
    (output / "inference").mkdir(parents=True)
    track = content["annotations"][0]
    results = [{key: track[key] for key in ("video_id", "category_id", "segmentations")}]
    results[0]["score"] = 0.8
    write_json(output / "inference", results, "results.json")
    lines = [
        {"iteration": i, "total_loss": 9.0 - i, "loss_ce": 1.0, "loss_ce_0": 2.0, "lr": 1e-4}
        for i in range(3)
    ]
    lines.append({"iteration": 3, "segm/AP": 30.0, "segm/AP-cat": float("nan")})
    (output / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    return config


def test_page_shows_scores_curves_pictures_and_settings(cfg):
    path = write_report(cfg, RESULTS, {"segm/AP": (47.25, 5), "lr": (2.0, 1)})
    assert path == Path(cfg.OUTPUT_DIR, FILE_NAME)
    page = path.read_text()
    assert "Report of run&lt;1&gt;" in page
    assert "<td>47.2</td><td>–</td>" in page
    assert page.index("<td>dog</td>") < page.index("<td>cat</td>")  # the best first
    for chart in ("Scores (%)", "total_loss", "loss_ce", "Learning rate"):
        assert f'aria-label="{chart}"' in page
    assert "loss_ce_0" not in page
    assert "segm/AP: 47.25 at 5" in page  # not in metrics.json yet
    assert "Best 1" in page
    assert "data:image/jpeg;base64," in page
    assert "<code>INPUT.SAMPLING_FRAME_NUM</code>" in page
    assert "BBOX_REG_WEIGHTS</code>" not in page  # a list and a tuple of the same numbers
    for word in ("http:", "https:", "<script", "nan"):
        assert word not in page.replace("data:image", "").split("<pre>")[0]
    assert not list(path.parent.glob("*.tmp"))


def test_evaluation_without_a_training_has_no_curves(cfg):
    Path(cfg.OUTPUT_DIR, "metrics.json").unlink()
    page = write_report(cfg, RESULTS).read_text()
    assert "evaluation only" in page
    assert "<svg" not in page
    assert "Best 1" in page


def test_training_without_evaluation_has_curves_only(cfg):
    Path(cfg.OUTPUT_DIR, "inference", "results.json").unlink()
    page = write_report(cfg, None).read_text()
    assert "<svg" in page
    assert "Evaluation on" not in page
    assert "<img" not in page


def test_fault_is_a_warning(cfg, caplog):
    Path(cfg.OUTPUT_DIR, "inference", "results.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert try_report(cfg, RESULTS) is None
    assert "report.html was not written: DataError:" in caplog.text
    assert not Path(cfg.OUTPUT_DIR, FILE_NAME).exists()


def test_report_can_be_turned_off(cfg):
    cfg.LOG.REPORT = False
    assert try_report(cfg, RESULTS) is None
    assert not Path(cfg.OUTPUT_DIR, FILE_NAME).exists()
