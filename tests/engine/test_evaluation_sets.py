"""Test sets are checked before anything is trained or predicted."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator

from maskfreevis_ext.data import register_from_config
from maskfreevis_ext.engine.evaluation_sets import (
    check_best_metric,
    check_test_classes,
    check_test_sets,
    inference_folder,
)
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.evaluation import EVALUATOR_REGISTRY
from tests.helpers.videos import data_cfg, plain_content, unique_name, write_frames, write_json


def _cfg(folder: Path, content: dict, *more: object, frames: bool = True) -> CfgNode:
    name = unique_name("test_set")
    images = write_frames(folder, content) if frames else str(folder)
    entry = [name, write_json(folder, content), images]
    cfg = data_cfg("INPUT.DATASETS", [entry], "DATASETS.TEST", (name,), *more)
    register_from_config(cfg)
    return cfg


def test_good_test_set_is_accepted(tmp_path):
    cfg = _cfg(tmp_path, plain_content(masks=True), "TEST.EVALUATORS", ["hota", "ytvis_ap"])
    check_test_sets(cfg)
    assert inference_folder(cfg, cfg.DATASETS.TEST[0]) == f"{cfg.OUTPUT_DIR}/inference"


def test_boxes_only_and_withheld_annotations_are_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        check_test_sets(_cfg(tmp_path, plain_content()))
        assert "has boxes but no masks" in caplog.text
        content = plain_content()
        del content["annotations"]
        (tmp_path / "withheld").mkdir()
        check_test_sets(_cfg(tmp_path / "withheld", content))
    assert "has no annotations: the results are not scored" in caplog.text


def test_track_without_masks_is_counted(tmp_path, caplog):
    content = plain_content(masks=True)
    content["annotations"][1]["segmentations"] = [None] * 4
    del content["annotations"][2]["segmentations"]
    check_test_sets(_cfg(tmp_path, content))
    assert "2 of 4 objects have no mask in any frame" in caplog.text


def _bad_box(content: dict) -> None:
    content["annotations"][0]["bboxes"][2] = ["a", 1, 2, 3]


def _bad_mask(content: dict) -> None:
    content["annotations"][0]["segmentations"][1] = {"size": [20, 30], "counts": "1"}


def _bad_area(content: dict) -> None:
    content["annotations"][0]["areas"] = [1, 2, 3, "4"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_bad_box, r"bboxes\[2\] must be"),
        (_bad_mask, r"segmentations\[1\]"),
        (_bad_area, r"areas\[3\] must be"),
    ],
)
def test_fault_in_the_annotations_is_named(tmp_path, damage, message):
    content = plain_content(masks=True)
    damage(content)
    with pytest.raises(DataError, match=message):
        check_test_sets(_cfg(tmp_path, content))


def test_text_behind_the_json_and_missing_frames_are_named(tmp_path):
    cfg = _cfg(tmp_path, plain_content(masks=True))
    path = Path(cfg.INPUT.DATASETS[0][1])
    text = path.read_text()
    path.write_text(text + "x")
    with pytest.raises(DataError, match=r"instances\.json: expected valid JSON"):
        check_test_sets(cfg)
    path.write_text(text)
    missing = Path(cfg.INPUT.DATASETS[0][2]) / json.loads(text)["videos"][0]["file_names"][1]
    missing.unlink()
    with pytest.raises(DataError, match="1 of 7 frames do not exist"):
        check_test_sets(cfg)


def test_unknown_evaluator_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"TEST\.EVALUATORS.*'mota'"):
        check_test_sets(_cfg(tmp_path, plain_content(masks=True), "TEST.EVALUATORS", ["mota"]))


class TestBestMetric:
    """TEST.BEST_METRIC must be one that evaluations give."""

    def check(self, folder: Path, metric: str, *more: object, masks: bool = True) -> None:
        cfg = _cfg(folder, plain_content(masks=masks), "TEST.BEST_METRIC", metric, *more)
        check_best_metric(cfg, check_test_sets(cfg))

    @pytest.mark.parametrize("metric", ["", "segm/AP", "segm/AP-cat", "hota/HOTA"])
    def test_known(self, tmp_path, metric):
        self.check(tmp_path, metric, "TEST.EVALUATORS", ["ytvis_ap", "hota"])

    @pytest.mark.parametrize("metric", ["AP", "segm/ap", "hota/HOTA"])
    def test_unknown(self, tmp_path, metric):
        with pytest.raises(ConfigError, match=rf"BEST_METRIC.*segm/AP, segm/AP50.*{metric}"):
            self.check(tmp_path, metric)

    def test_boxes_only(self, tmp_path):
        with pytest.raises(ConfigError, match=r"BEST_METRIC.*\(none\), got 'segm/AP'"):
            self.check(tmp_path, "segm/AP", masks=False)

    def test_evaluator_that_does_not_tell(self, tmp_path):
        @EVALUATOR_REGISTRY.register()
        def silent_evaluator(dataset_name: str, output_dir: str | None) -> DatasetEvaluator:
            return DatasetEvaluator()

        self.check(tmp_path, "mine/score", "TEST.EVALUATORS", ["silent_evaluator", "ytvis_ap"])


def test_ground_truth_is_checked_beside_an_evaluator_of_another_kind(tmp_path):
    @EVALUATOR_REGISTRY.register()
    def other_evaluator(dataset_name: str, output_dir: str | None) -> DatasetEvaluator:
        return DatasetEvaluator()

    content = plain_content(masks=True)
    _bad_area(content)
    with pytest.raises(DataError, match="areas"):
        check_test_sets(_cfg(tmp_path, content, "TEST.EVALUATORS", ["other_evaluator", "ytvis_ap"]))


def test_classes_of_test_sets_must_be_among_the_models(tmp_path):
    cfg = _cfg(tmp_path, plain_content(masks=True))
    check_test_sets(cfg)
    for names in (None, ["emu"], ["dog", "cat", "emu"]):
        check_test_classes(cfg, names)
    with pytest.raises(ConfigError, match=r"DATASETS\.TEST: no class of .*'cat'.*\['car'\]"):
        check_test_classes(cfg, ["car"])
