"""Video IoU of each object: matching by id and by box, means, tables, faults."""

from __future__ import annotations

import copy
import csv
import io

import pytest

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.evaluation.per_object import (
    objects_csv,
    objects_markdown,
    score_objects,
    summarize_objects,
)
from tests.helpers.videos import plain_content, rectangle


@pytest.fixture
def truth() -> dict:
    """Video v1 with the objects 10 and 11, v2 with 20."""
    content = plain_content((4, 3), masks=True)
    del content["annotations"][3]
    return content


def test_objects_are_matched_by_id(truth):
    made = copy.deepcopy(truth)
    made["annotations"].reverse()
    made["annotations"][-1]["segmentations"][0] = None  # a quarter of object 10
    scores = score_objects(truth, made)
    assert [(each.video, each.object_id, each.objects_in_video) for each in scores] == [
        ("v1", 10, 2),
        ("v1", 11, 2),
        ("v2", 20, 1),
    ]
    assert [each.values["IoU"] for each in scores] == pytest.approx([0.75, 1, 1])
    assert {each.found_by for each in scores} == {"id"}
    assert summarize_objects(scores) == [
        ("all objects", 3, {"IoU": pytest.approx(2.75 / 3)}),
        ("one-object videos", 1, {"IoU": 1}),
        ("videos of several objects", 2, {"IoU": pytest.approx(0.875)}),
    ]


def test_other_ids_are_matched_by_box(truth):
    made = copy.deepcopy(truth)
    for each in made["annotations"]:
        each["id"] += 100
    made["annotations"].reverse()
    scores = score_objects(truth, made)
    assert [each.values["IoU"] for each in scores] == [1, 1, 1]
    assert {each.found_by for each in scores} == {"box"}


def test_id_of_another_video_is_not_taken(truth):
    made = copy.deepcopy(truth)
    first, third = made["annotations"][0], made["annotations"][2]
    first["id"], third["id"] = third["id"], first["id"]
    scores = score_objects(truth, made)
    assert [each.values["IoU"] for each in scores] == [1, 1, 1]
    assert [each.found_by for each in scores] == ["box", "id", "box"]


def test_results_file_is_matched_by_the_boxes_of_its_masks(truth):
    results = [
        {
            "video_id": each["video_id"],
            "category_id": 3,
            "score": 0.1,
            "segmentations": each["segmentations"],
        }
        for each in truth["annotations"][:2]
    ]
    scores = score_objects(truth, results[::-1])
    assert [(each.values["IoU"], each.found_by) for each in scores] == [
        (1, "box"),
        (1, "box"),
        (0, ""),
    ]


def test_far_box_is_no_match_and_object_without_masks_counts_as_0(truth):
    made = copy.deepcopy(truth)
    made["annotations"][0] |= {
        "id": 99,
        "bboxes": [[20, 12, 4, 4]] * 4,
        "segmentations": [rectangle(20, 12, 4, 4)] * 4,
    }
    del made["annotations"][2]["segmentations"]
    scores = score_objects(truth, made)
    assert [each.values["IoU"] for each in scores] == [0, 1, 0]


def test_tables_have_every_object_and_the_means(truth):
    scores = score_objects(truth, truth)
    rows = list(csv.DictReader(io.StringIO(objects_csv(scores))))
    assert rows[2] == {"video": "v2", "object": "20", "IoU": "1.0000"}
    table = objects_markdown(scores).splitlines()
    assert table[0] == "| video | object | IoU |"
    assert table[2] == "| v1 | 10 | 1.000 |"
    assert table[-1] == "| mean of videos of several objects | 2 | **1.000** |"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda gt, made: gt.update(annotations=[]), "expected objects with masks, got none"),
        (lambda gt, made: made.pop("annotations"), "made: 'annotations' must be a list"),
        (
            lambda gt, made: made["annotations"][1]["segmentations"].pop(),
            r"made: annotations\[1\] \(id 11\)\.segmentations has 3 entries, but video 1 has 4",
        ),
        (
            lambda gt, made: made["annotations"][1].update(id=10),
            "id must be unique",
        ),
    ],
)
def test_fault_is_named(truth, damage, message):
    made = copy.deepcopy(truth)
    damage(truth, made)
    with pytest.raises(DataError, match=message):
        score_objects(truth, made, predicted_name="made")


def test_neither_form_is_refused(truth):
    with pytest.raises(DataError, match="an annotation file or a list"):
        score_objects(truth, 3)
