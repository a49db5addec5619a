"""A model's classes are matched with those of a test set by their names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators

from maskfreevis_ext.data import register_ytvis_instances
from maskfreevis_ext.data.class_lists import CLASS_LISTS
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.evaluation import YTVISEvaluator
from maskfreevis_ext.evaluation.class_matching import (
    check_classes,
    find_table,
    match_classes,
    relabel,
)
from maskfreevis_ext.rle import decode_rle
from tests.helpers.videos import HEIGHT, WIDTH, plain_content, unique_name, write_json

NAMES = ["cat", "dog", "emu"]


def _register(folder: Path, content: dict[str, Any]) -> str:
    name = unique_name("by_name")
    folder.mkdir(exist_ok=True)
    register_ytvis_instances(name, {}, write_json(folder, content), str(folder))
    return name


def _renumbered(ids: dict[str, int]) -> dict[str, Any]:
    """The plain videos with other category ids; classes and objects without an id are left out."""
    content = plain_content(masks=True)
    name_of = {each["id"]: each["name"] for each in content["categories"]}
    content["categories"] = [{"id": i, "name": name} for name, i in ids.items()]
    content["annotations"] = [
        {**one, "category_id": ids[name_of[one["category_id"]]]}
        for one in content["annotations"]
        if name_of[one["category_id"]] in ids
    ]
    return content


def _perfect(content: dict[str, Any], names: list[str], video_id: int) -> dict[str, Any]:
    """What a model with these classes that knows all objects of the plain videos predicts."""
    name_of = {each["id"]: each["name"] for each in content["categories"]}
    tracks = [one for one in content["annotations"] if one["video_id"] == video_id]
    masks = [
        torch.stack(
            [
                torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
                if rle is None
                else torch.from_numpy(decode_rle(rle, ""))
                for rle in one["segmentations"]
            ]
        )
        for one in tracks
    ]
    return {
        "pred_scores": [0.9 - 0.1 * i for i in range(len(tracks))],
        "pred_labels": [names.index(name_of[one["category_id"]]) for one in tracks],
        "pred_masks": masks,
        "image_size": (HEIGHT, WIDTH),
    }


def _evaluate(dataset: str, names: list[str] | None, predicted_by: list[str]) -> dict[str, float]:
    content = plain_content(masks=True)
    evaluator = match_classes(YTVISEvaluator(dataset, distributed=False), dataset, names)
    evaluator.reset()
    for video in content["videos"]:
        output = _perfect(content, predicted_by, video["id"])
        evaluator.process([{"video_id": video["id"]}], [output])
    return evaluator.evaluate()["segm"]


@pytest.mark.parametrize(
    "ids",
    [
        {"cat": 3, "dog": 7, "emu": 9},
        {"cat": 9, "dog": 3, "emu": 7},
        {"dog": 1, "Cat": 2, "E M U": 3},
        {"cat": 5, "dog": 4},
        {"emu": 1, "cow": 2, "dog": 3, "cat": 4},
    ],
)
@pytest.mark.parametrize("order", [["cat", "dog", "emu"], ["emu", "dog", "cat"]])
def test_perfect_predictions_have_ap_100_whatever_the_numbers(tmp_path, ids, order):
    plain = {"Cat": "cat", "E M U": "emu"}
    content = _renumbered({plain.get(name, name): i for name, i in ids.items()})
    for each in content["categories"]:
        each["name"] = next(name for name, i in ids.items() if i == each["id"])
    scores = _evaluate(_register(tmp_path, content), order, order)
    per_class = {name: value for name, value in scores.items() if name.startswith("AP-")}
    seen = [value for value in per_class.values() if value == value]
    assert seen == [100.0] * 2, scores
    assert scores["AP"] == 100.0


def test_without_names_the_position_counts(tmp_path):
    dataset = _register(tmp_path, _renumbered({"dog": 1, "cat": 2, "emu": 3}))
    assert _evaluate(dataset, None, ["dog", "cat", "emu"])["AP"] == 100.0
    assert _evaluate(dataset, None, NAMES)["AP"] == 0.0
    assert _evaluate(dataset, NAMES, NAMES)["AP"] == 100.0


def test_same_classes_need_no_table(tmp_path):
    dataset = _register(tmp_path, plain_content(masks=True))
    evaluator = YTVISEvaluator(dataset)
    for names in (NAMES, ["Cat", "DOG", "e-m-u"], None):
        assert find_table(dataset, names) is None
        assert match_classes(evaluator, dataset, names) is evaluator


def test_classes_that_have_nothing_in_common_are_refused(tmp_path):
    dataset = _register(tmp_path, plain_content())
    with pytest.raises(ConfigError, match=r"'cat', 'dog', 'emu'.*'car', 'bus', 'van'"):
        find_table(dataset, ["car", "bus", "van"])


def test_class_that_the_model_does_not_know_is_named(tmp_path, caplog):
    dataset = _register(tmp_path, plain_content())
    with caplog.at_level(logging.INFO):
        check_classes(dataset, ["dog", "emu", "cow"])
    assert "matched with the model's by name: 2 of 3" in caplog.text
    assert "the model cannot predict ['cat']; their AP is 0" in caplog.text


def test_data_set_without_classes_is_not_matched():
    name = unique_name("by_name")
    MetadataCatalog.get(name).set(evaluator_type="other")
    assert find_table(name, NAMES) is None


def test_public_class_lists_are_matched_by_the_shipped_maps():
    name = unique_name("by_name")
    classes = list(CLASS_LISTS["ytvis_2019"])
    MetadataCatalog.get(name).set(
        thing_classes=classes,
        thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(classes))},
    )
    table = find_table(name, CLASS_LISTS["coco"])
    assert classes[table[0]] == "person"


def test_relabelled_output_is_a_new_one():
    output = {
        "pred_scores": [0.9, 0.8, 0.7],
        "pred_labels": torch.tensor([2, 0, 1]),
        "pred_masks": torch.arange(3)[:, None, None, None],
        "pred_class_names": ["c", "a", "b"],
        "dynamic_mask": [1, 2, 3],
    }
    changed = relabel(output, {2: 0, 1: 5})
    assert changed["pred_labels"] == [0, 5]
    assert changed["pred_scores"] == [0.9, 0.7]
    assert [int(mask) for mask in changed["pred_masks"]] == [0, 2]
    assert changed["pred_class_names"] == ["c", "b"]
    assert changed["dynamic_mask"] == [1, 2, 3]
    assert output["pred_scores"] == [0.9, 0.8, 0.7]


def test_several_evaluators_are_wrapped_together(tmp_path):
    dataset = _register(tmp_path, _renumbered({"dog": 1, "cat": 2, "emu": 3}))
    both = DatasetEvaluators([YTVISEvaluator(dataset, distributed=False)])
    wrapped = match_classes(both, dataset, NAMES)
    wrapped.reset()
    content = plain_content(masks=True)
    for video in content["videos"]:
        wrapped.process([{"video_id": video["id"]}], [_perfect(content, NAMES, video["id"])])
    assert wrapped.evaluate()["segm"]["AP"] == 100.0
