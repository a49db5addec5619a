"""The Detectron2 evaluator: what it collects, writes and reports."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset

from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.evaluation import (
    EVALUATOR_REGISTRY,
    YTVISEvaluator,
    build_evaluator,
    evaluator_names,
)
from maskfreevis_ext.evaluation import evaluator as module
from tests.helpers.configs import base_cfg
from tests.helpers.tracks import make_ground_truth
from tests.helpers.videos import unique_name

LABELS = {2: 0, 5: 1}  # category id -> label


@pytest.fixture
def ground_truth() -> dict[str, Any]:
    return make_ground_truth(np.random.RandomState(3))


@pytest.fixture
def register(tmp_path) -> Callable[..., str]:
    """Write an annotation file and give the name of a data set that has it."""

    def _register(content: dict[str, Any], **metadata: Any) -> str:
        name = unique_name("evaluator")
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        MetadataCatalog.get(name).set(json_file=str(path), evaluator_type="ytvis", **metadata)
        return name

    return _register


def decode(segmentations: list[dict | None], height: int, width: int) -> torch.Tensor:
    frames = [
        np.zeros((height, width), np.uint8) if rle is None else coco_mask.decode(rle)
        for rle in segmentations
    ]
    return torch.from_numpy(np.stack(frames).astype(bool))


def perfect_outputs(content: dict[str, Any]) -> tuple[list[dict], list[dict]]:
    """Batch dicts and model outputs that repeat the annotations."""
    inputs, outputs = [], []
    for video in content["videos"]:
        tracks = [item for item in content["annotations"] if item["video_id"] == video["id"]]
        size = (video["height"], video["width"])
        inputs.append({"video_id": video["id"], "height": size[0], "width": size[1]})
        outputs.append(
            {
                "image_size": size,
                "pred_scores": [0.9 - 0.1 * index for index in range(len(tracks))],
                "pred_labels": [LABELS[item["category_id"]] for item in tracks],
                "pred_masks": [decode(item["segmentations"], *size) for item in tracks],
            }
        )
    return inputs, outputs


def run(evaluator: YTVISEvaluator, content: dict[str, Any]) -> dict:
    evaluator.reset()
    for pair in zip(*perfect_outputs(content), strict=True):
        evaluator.process([pair[0]], [pair[1]])
    return evaluator.evaluate()


def test_perfect_outputs_give_detectron2_results(register, ground_truth):
    evaluator = YTVISEvaluator(register(ground_truth))

    results = run(evaluator, ground_truth)

    assert isinstance(evaluator, DatasetEvaluator)
    assert list(results) == ["segm"]
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AP-fish", "AP-crab"]
    assert list(results["segm"]) == names
    assert results["segm"]["AP"] == pytest.approx(100.0)
    assert results["segm"]["AP-crab"] == pytest.approx(100.0)
    assert math.isnan(results["segm"]["APl"])


def test_results_file_is_a_submission_with_dataset_ids(register, ground_truth, tmp_path):
    name = register(ground_truth, thing_dataset_id_to_contiguous_id=LABELS)

    run(YTVISEvaluator(name, output_dir=str(tmp_path / "new" / "folder")), ground_truth)

    path = tmp_path / "new" / "folder" / "results.json"
    entries = json.loads(path.read_text())
    assert [entry["category_id"] for entry in entries[:3]] == [2, 5, 5]
    video = ground_truth["videos"][0]
    assert entries[0].keys() == {"video_id", "score", "category_id", "segmentations"}
    assert entries[0]["video_id"] == video["id"]
    masks = decode(entries[0]["segmentations"], video["height"], video["width"])
    expected = decode(
        ground_truth["annotations"][0]["segmentations"], video["height"], video["width"]
    )
    assert torch.equal(masks, expected)
    assert [item.name for item in path.parent.iterdir()] == ["results.json"]


def test_process_keeps_no_bitmaps(register, ground_truth):
    evaluator = YTVISEvaluator(register(ground_truth))

    evaluator.process(*perfect_outputs(ground_truth))

    for entry in evaluator._predictions:
        assert all(isinstance(rle["counts"], str) for rle in entry["segmentations"])


def test_reset_forgets(register, ground_truth):
    evaluator = YTVISEvaluator(register(ground_truth))
    evaluator.process(*perfect_outputs(ground_truth))

    evaluator.reset()

    assert evaluator.evaluate()["segm"]["AP"] == 0.0


def test_no_predictions_give_ap_0(register, ground_truth, caplog):
    evaluator = YTVISEvaluator(register(ground_truth))

    with caplog.at_level(logging.WARNING):
        results = evaluator.evaluate()

    assert results["segm"]["AP"] == 0.0
    assert "predicted no track" in caplog.text


def test_ground_truth_without_annotations_is_not_scored(register, ground_truth, tmp_path, caplog):
    del ground_truth["annotations"]
    evaluator = YTVISEvaluator(register(ground_truth), output_dir=str(tmp_path / "out"))
    evaluator.process(
        [{"video_id": ground_truth["videos"][0]["id"]}],
        [
            {
                "pred_scores": [0.5],
                "pred_labels": [1],
                "pred_masks": [torch.ones(2, 4, 4, dtype=torch.bool)],
            }
        ],
    )

    with caplog.at_level(logging.INFO):
        assert evaluator.evaluate() == {}

    assert "has no annotations" in caplog.text
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 1


def test_box_only_ground_truth_ends_no_training(register, ground_truth, caplog):
    outputs = perfect_outputs(ground_truth)
    for annotation in ground_truth["annotations"]:
        del annotation["segmentations"]
    evaluator = YTVISEvaluator(register(ground_truth))
    evaluator.process(*outputs)

    with caplog.at_level(logging.WARNING):
        assert evaluator.evaluate() == {}

    assert "boxes but no masks" in caplog.text


def test_names_of_the_metrics_are_known_without_measuring(register, ground_truth, monkeypatch):
    name = register(ground_truth)
    evaluator = YTVISEvaluator(name, metrics=["ytvis_ap", "hota", "idf1", "davis_jf"])
    results = run(evaluator, ground_truth)
    for function in ("davis.frame_ious", "davis.frame_boundary_f", "tracking.frame_ious"):
        monkeypatch.setattr(f"maskfreevis_ext.evaluation.{function}", None)

    known = evaluator.check_ground_truth()

    assert known == [f"{task}/{metric}" for task in results for metric in results[task]]


def test_tracks_of_foreign_classes_are_left_out_and_counted(register, ground_truth, caplog):
    inputs, outputs = perfect_outputs(ground_truth)
    outputs[0]["pred_labels"][0] = 7
    evaluator = YTVISEvaluator(register(ground_truth))
    evaluator.process(inputs, outputs)

    with caplog.at_level(logging.WARNING):
        results = evaluator.evaluate()

    assert "1 of 9 predicted tracks are of classes" in caplog.text
    assert 0.0 < results["segm"]["AP-fish"] < 100.0


def test_wrong_number_of_frames_names_the_video(register, ground_truth):
    inputs, outputs = perfect_outputs(ground_truth)
    outputs[0]["pred_masks"][0] = outputs[0]["pred_masks"][0][:0]
    evaluator = YTVISEvaluator(register(ground_truth))
    evaluator.process(inputs, outputs)

    with pytest.raises(DataError, match="segmentations has 0 entries, but video 10 has"):
        evaluator.evaluate()


def test_dataset_without_annotation_file_is_refused():
    name = unique_name("evaluator")
    MetadataCatalog.get(name).set(evaluator_type="ytvis")

    with pytest.raises(ConfigError, match=f"{name}.* has no annotation file"):
        YTVISEvaluator(name)


class TestSeveralProcesses:
    """``comm`` of a run with two processes, which this one is the first or second of."""

    def test_first_scores_what_all_have_collected(self, register, ground_truth, monkeypatch):
        inputs, outputs = perfect_outputs(ground_truth)
        others = YTVISEvaluator(register(ground_truth))
        others.process(inputs[1:], outputs[1:])
        evaluator = YTVISEvaluator(register(ground_truth))
        evaluator.process(inputs[:1], outputs[:1])
        shares = [evaluator._predictions, others._predictions]
        monkeypatch.setattr(module, "gather_json", lambda data: shares)

        assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100.0)

    def test_second_reports_nothing(self, register, ground_truth, monkeypatch):
        evaluator = YTVISEvaluator(register(ground_truth))
        monkeypatch.setattr(module, "gather_json", lambda data: [])
        monkeypatch.setattr(module.comm, "is_main_process", lambda: False)

        assert run(evaluator, ground_truth) == {}

    def test_distributed_off_does_not_gather(self, register, ground_truth, monkeypatch):
        def fail(*args: object, **kwargs: object) -> None:
            raise AssertionError

        monkeypatch.setattr(module, "gather_json", fail)
        evaluator = YTVISEvaluator(register(ground_truth), distributed=False)

        assert run(evaluator, ground_truth)["segm"]["AP"] == pytest.approx(100.0)


def test_inference_on_dataset_runs_it(register, ground_truth):
    inputs, outputs = perfect_outputs(ground_truth)
    by_video = {video["video_id"]: out for video, out in zip(inputs, outputs, strict=True)}

    class Oracle(torch.nn.Module):
        def forward(self, batch: list[dict]) -> list[dict]:
            return [by_video[video["video_id"]] for video in batch]

    evaluator = YTVISEvaluator(register(ground_truth))
    results = inference_on_dataset(Oracle(), [[video] for video in inputs], evaluator)

    assert results["segm"]["AP50"] == pytest.approx(100.0)


class TestRegistry:
    """Evaluators by the ``evaluator_type`` of a data set."""

    def test_ytvis_has_its_evaluator(self, register, ground_truth, tmp_path):
        evaluator = build_evaluator(register(ground_truth), str(tmp_path / "out"))

        results = run(evaluator, ground_truth)

        assert isinstance(evaluator, YTVISEvaluator)
        assert results["segm"]["AP50"] == pytest.approx(100.0)
        assert (tmp_path / "out" / "results.json").is_file()

    def test_own_evaluator_is_found_by_its_name(self):
        kind, name = unique_name("kind"), unique_name("evaluator")
        built: list[tuple] = []

        def build(dataset_name: str, output_dir: str | None) -> DatasetEvaluator:
            built.append((dataset_name, output_dir))
            return DatasetEvaluator()

        build.__name__ = kind
        EVALUATOR_REGISTRY.register(build)
        MetadataCatalog.get(name).set(evaluator_type=kind)

        assert type(build_evaluator(name, "folder")) is DatasetEvaluator
        assert built == [(name, "folder")]

    @pytest.mark.parametrize("metadata", [{"evaluator_type": "coco"}, {}])
    def test_unknown_kind_names_the_known_ones(self, metadata):
        name = unique_name("evaluator")
        MetadataCatalog.get(name).set(**metadata)

        with pytest.raises(ConfigError, match=rf"{name}.* one of: .*ytvis.*; got"):
            build_evaluator(name)

    def test_names_choose_the_metrics_of_one_evaluator(self, register, ground_truth, tmp_path):
        names = ["hota", "davis_jf", "ytvis_ap"]
        evaluator = build_evaluator(register(ground_truth), str(tmp_path), names)

        results = run(evaluator, ground_truth)

        assert isinstance(evaluator, YTVISEvaluator)
        assert list(results) == ["hota", "davis_jf", "segm"]
        assert results["hota"]["HOTA-fish"] == pytest.approx(100.0)
        assert results["davis_jf"]["J&F"] == pytest.approx(100.0)

    def test_metrics_and_other_evaluators_go_together(self, register, ground_truth):
        kind = unique_name("kind")

        def build(dataset_name: str, output_dir: str | None) -> DatasetEvaluator:
            class Counter(DatasetEvaluator):
                def evaluate(self):
                    return {"count": {"videos": 3}}

            return Counter()

        build.__name__ = kind
        EVALUATOR_REGISTRY.register(build)
        evaluator = build_evaluator(register(ground_truth), None, [kind, "idf1"])

        results = run(evaluator, ground_truth)

        assert results["count"] == {"videos": 3}
        assert results["idf1"]["IDF1"] == pytest.approx(100.0)

    def test_entries_of_the_config_are_for_all_sets_or_for_one(self):
        cfg = base_cfg()
        cfg.DATASETS.TEST = ("one", "two")
        assert evaluator_names(cfg, "one") == []
        cfg.TEST.EVALUATORS = ["ytvis_ap", "two:hota", "two:ytvis_ap"]
        assert evaluator_names(cfg, "one") == ["ytvis_ap"]
        assert evaluator_names(cfg, "two") == ["ytvis_ap", "hota"]

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ("hotta", "expected one of: ytvis_ap, hota, idf1, davis_jf, .*got 'hotta'"),
            ("three:hota", "'three', which is not in DATASETS.TEST"),
        ],
    )
    def test_wrong_entry_of_the_config_is_refused(self, entry, message):
        cfg = base_cfg()
        cfg.DATASETS.TEST = ("one", "two")
        cfg.TEST.EVALUATORS = [entry]
        with pytest.raises(ConfigError, match=rf"TEST\.EVALUATORS: .*{message}"):
            evaluator_names(cfg, "one")
