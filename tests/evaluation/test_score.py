"""Scores of submissions: stored values of the official evaluator, invariances, faults."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.evaluation import METRICS, score_results
from maskfreevis_ext.evaluation.ground_truth import NoMasksError, has_annotations, read_results
from tests.helpers.tracks import (
    encode,
    golden_case,
    make_ground_truth,
    perfect_results,
    random_track,
)


@pytest.fixture
def rng() -> np.random.RandomState:
    return np.random.RandomState(3)


@pytest.mark.parametrize("name", ["s0", "s1_crowd"])
class TestOfficialEvaluator:
    """Values of the official evaluator, stored with the submission that it scored."""

    def test_all_metrics_agree(self, name):
        case = golden_case(name)

        metrics = score_results(case["gt"], case["results"]).metrics

        assert list(metrics) == list(METRICS)
        for metric, value in metrics.items():
            expected = case["expected"][metric]
            if expected == -1:
                assert math.isnan(value)
            else:
                assert value == pytest.approx(100 * expected, abs=1e-10)

    def test_ap_of_each_class_agrees(self, name):
        case = golden_case(name)

        per_class = score_results(case["gt"], case["results"]).per_class

        expected = case["expected_per_category"]
        assert [entry[0] for entry in per_class] == list(expected)
        assert dict(per_class) == pytest.approx(
            {k: 100 * v for k, v in expected.items()}, abs=1e-10
        )

    def test_long_videos_are_scored_alike(self, name, monkeypatch):
        case = golden_case(name)
        expected = score_results(case["gt"], case["results"]).metrics

        # Every video counts as too long.
        monkeypatch.setattr("maskfreevis_ext.evaluation.overlap._COCO_PIXELS", 0)

        metrics = score_results(case["gt"], case["results"]).metrics
        assert metrics == pytest.approx(expected, nan_ok=True)

    def test_order_of_results_does_not_matter(self, name, rng):
        case = golden_case(name)
        results = case["results"]
        assert len({entry["score"] for entry in results}) == len(results)  # no ties to break
        expected = score_results(case["gt"], results).metrics

        shuffled = [results[index] for index in rng.permutation(len(results))]

        assert score_results(case["gt"], shuffled).metrics == pytest.approx(
            expected, abs=1e-12, nan_ok=True
        )

    def test_input_stays_as_it_is(self, name):
        case = golden_case(name)
        before = copy.deepcopy(case)

        score_results(case["gt"], case["results"])

        assert case == before

    def test_missing_areas_and_crowd_flags_are_made_up_for(self, name):
        case = golden_case(name)
        for annotation in case["gt"]["annotations"]:
            del annotation["areas"]
            if not annotation["iscrowd"]:
                del annotation["iscrowd"]

        metrics = score_results(case["gt"], case["results"]).metrics

        assert metrics["APs"] == pytest.approx(100 * case["expected"]["APs"], abs=1e-10)
        assert metrics["AP"] == pytest.approx(100 * case["expected"]["AP"], abs=1e-10)


def test_perfect_results_score_100(rng):
    ground_truth = make_ground_truth(rng)

    scores = score_results(ground_truth, perfect_results(ground_truth))

    assert scores.metrics["AP"] == pytest.approx(100.0)
    assert (
        scores.metrics["AR1"] < scores.metrics["AR10"] == pytest.approx(100.0)
    )  # two crabs in each video
    assert dict(scores.per_class) == pytest.approx({"fish": 100.0, "crab": 100.0})


def test_no_results_score_0(rng):
    scores = score_results(make_ground_truth(rng), [])

    assert scores.metrics["AP"] == scores.metrics["AR10"] == 0.0
    assert scores.per_class == [("fish", 0.0), ("crab", 0.0)]


def test_empty_masks_score_0(rng):
    ground_truth = make_ground_truth(rng)
    results = perfect_results(ground_truth)
    for entry in results:
        entry["segmentations"] = [None] * len(entry["segmentations"])

    assert score_results(ground_truth, results).metrics["AP"] == 0.0


def test_class_without_ground_truth_is_undefined(rng):
    ground_truth = make_ground_truth(rng)
    ground_truth["categories"].append({"id": 1, "name": "whale"})

    scores = score_results(ground_truth, perfect_results(ground_truth))

    assert scores.per_class[0][0] == "whale"
    assert math.isnan(scores.per_class[0][1])
    assert scores.metrics["AP"] == pytest.approx(100.0)


def test_ground_truth_without_tracks_is_undefined(rng):
    ground_truth = make_ground_truth(rng) | {"annotations": []}

    assert all(math.isnan(value) for value in score_results(ground_truth, []).metrics.values())


def test_object_seen_in_half_of_its_area_gives_that_iou():
    """IoU over the whole track: full in one frame, absent in the other, of equal area."""
    mask = np.zeros((10, 12), dtype=bool)
    mask[2:6, 3:8] = True
    ground_truth = {
        "videos": [{"id": 1, "height": 10, "width": 12, "length": 2}],
        "categories": [{"id": 1, "name": "fish"}],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 1, "segmentations": [encode(mask)] * 2}
        ],
    }
    result = {"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [encode(mask), None]}

    metrics = score_results(ground_truth, [result]).metrics

    assert metrics["AP50"] == pytest.approx(100.0)  # IoU is 0.5, which meets the threshold
    assert metrics["AP75"] == 0.0
    assert metrics["AP"] == pytest.approx(10.0)  # one threshold of ten


def test_area_ranges_use_the_mean_over_visible_frames():
    """Large in one frame of three: 300 x 300 on average over where it is, and so large."""
    mask = np.zeros((320, 320), dtype=bool)
    mask[:300, :300] = True
    ground_truth = {
        "videos": [{"id": 1, "height": 320, "width": 320, "length": 3}],
        "categories": [{"id": 1, "name": "fish"}],
        "annotations": [
            {
                "id": 1,
                "video_id": 1,
                "category_id": 1,
                "segmentations": [None, encode(mask), None],
            }
        ],
    }

    metrics = score_results(ground_truth, perfect_results(ground_truth)).metrics

    assert metrics["APl"] == pytest.approx(100.0)
    assert math.isnan(metrics["APs"])
    assert math.isnan(metrics["APm"])


def test_crowd_is_ignored_and_can_match_twice(rng):
    ground_truth = make_ground_truth(rng, num_videos=1)
    fish = ground_truth["annotations"][0]
    fish["iscrowd"] = 1
    results = perfect_results(ground_truth)
    results += [results[0] | {"score": 0.99}, results[0] | {"score": 0.98}]  # three on the crowd

    scores = score_results(ground_truth, results)

    assert math.isnan(scores.per_class[0][1])  # nothing left to find
    assert scores.metrics["AP"] == pytest.approx(100.0)


FAULTS = {
    "unknown video": (
        lambda gt, res: res[1].update(video_id=99),
        r"results: results\[1\]\.video_id must be one of the 3 of the ground truth .*, got 99",
    ),
    "unknown class": (
        lambda gt, res: res[1].update(category_id=1),
        r"results\[1\]\.category_id must be one of the 2 of the ground truth \(2, 5\), got 1",
    ),
    "score is text": (
        lambda gt, res: res[0].update(score="high"),
        r"score must be a finite number, got 'high'",
    ),
    "score is NaN": (lambda gt, res: res[0].update(score=float("nan")), "got nan"),
    "no score": (lambda gt, res: res[0].pop("score"), "got nothing"),
    "no masks": (lambda gt, res: res[0].pop("segmentations"), "segmentations must be a list"),
    "a frame too many": (
        lambda gt, res: res[0].update(segmentations=[*res[0]["segmentations"], None]),
        r"results\[0\]\.segmentations has \d entries, but video 10 has \d frames",
    ),
    "damaged mask": (
        lambda gt, res: res[0].update(
            segmentations=[{"size": [1, 1], "counts": ""}] * len(res[0]["segmentations"])
        ),
        r"results\[0\], video 10: segmentations\[0\]",
    ),
    "result is a number": (lambda gt, res: res.append(3), r"results\[9\] must be an object, got 3"),
    "id is text": (lambda gt, res: res[0].update(video_id="10"), "video_id must be an integer"),
    "no videos": (lambda gt, res: gt.pop("videos"), "'videos' must be a list, got nothing"),
    "no annotations": (lambda gt, res: gt.pop("annotations"), "withheld in public"),
    "video id twice": (lambda gt, res: gt["videos"].append(gt["videos"][0]), "id must be unique"),
    "class id twice": (lambda gt, res: gt["categories"].append({"id": 2}), "id must be unique"),
    "video without height": (
        lambda gt, res: gt["videos"][0].pop("height"),
        "height must be an integer",
    ),
    "video of no frame": (
        lambda gt, res: gt["videos"][0].update(length=0),
        "length must be an integer",
    ),
    "track of another length": (
        lambda gt, res: gt["annotations"][0]["segmentations"].append(None),
        r"annotations\[0\] \(id 0\)\.segmentations has",
    ),
    "areas of text": (
        lambda gt, res: gt["annotations"][0].update(areas=["1"]),
        "areas must be a list of numbers",
    ),
    "crowd flag of text": (
        lambda gt, res: gt["annotations"][0].update(iscrowd="no"),
        "iscrowd must be 0 or 1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(fault, rng):
    ground_truth = make_ground_truth(rng)
    results = perfect_results(ground_truth)
    damage, message = FAULTS[fault]
    damage(ground_truth, results)

    with pytest.raises(DataError, match=message):
        score_results(ground_truth, results)


def test_box_only_ground_truth_says_what_is_needed(rng):
    ground_truth = make_ground_truth(rng)
    results = perfect_results(ground_truth)
    for annotation in ground_truth["annotations"]:
        del annotation["segmentations"]

    with pytest.raises(NoMasksError, match=r"val\.json: .*boxes only.* 'segmentations'"):
        score_results(ground_truth, results, ground_truth_name="val.json")


@pytest.mark.parametrize("masks", [None, [], "null", "empty"])
def test_object_without_any_mask_is_counted_and_left_out(rng, caplog, masks):
    ground_truth = make_ground_truth(rng)
    results = perfect_results(ground_truth)
    object_ = ground_truth["annotations"][1]
    video = ground_truth["videos"][0]
    if masks == "null":
        masks = [None] * video["length"]
    elif masks == "empty":
        masks = [encode(np.zeros((video["height"], video["width"]), dtype=bool))] * video["length"]
    object_["segmentations"] = masks
    del results[1]

    scores = score_results(ground_truth, results, ground_truth_name="val.json")

    assert scores.metrics["AP"] == pytest.approx(100.0)
    assert "val.json: 1 of 9 objects have no mask in any frame: they are left out" in caplog.text


@pytest.mark.parametrize("masks", ["null", "empty"])
def test_ground_truth_of_empty_masks_is_boxes_only(rng, masks):
    ground_truth = make_ground_truth(rng)
    sizes = {video["id"]: video for video in ground_truth["videos"]}
    for each in ground_truth["annotations"]:
        video = sizes[each["video_id"]]
        empty = encode(np.zeros((video["height"], video["width"]), dtype=bool))
        each["segmentations"] = [None if masks == "null" else empty] * video["length"]

    with pytest.raises(NoMasksError, match=r"boxes only"):
        score_results(ground_truth, [])


def test_has_annotations_knows_withheld_ones(rng):
    ground_truth = make_ground_truth(rng)

    assert has_annotations(ground_truth)
    assert not has_annotations({"videos": [], "categories": []})
    assert not has_annotations(ground_truth | {"annotations": None})


@pytest.mark.parametrize("content", ["{}", "[", "", "[" * 100_000])
def test_results_file_that_is_no_list_is_refused(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)

    with pytest.raises(DataError, match=r"results\.json: (expected|brackets)"):
        read_results(path)


def test_absent_results_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_results(tmp_path / "results.json")


def test_more_than_100_results_of_a_class_are_cut_at_the_best_100(rng):
    ground_truth = make_ground_truth(rng, num_videos=1)
    video = ground_truth["videos"][0]
    size = (video["length"], video["height"], video["width"])
    noise = [
        {
            "video_id": 10,
            "category_id": 2,
            "score": 0.95 + 0.0001 * index,
            "segmentations": [encode(mask) for mask in random_track(rng, *size) & False],
        }
        for index in range(100)
    ]

    results = perfect_results(ground_truth)

    assert score_results(ground_truth, results + noise[:99]).per_class[0][1] > 0.0
    assert score_results(ground_truth, results + noise).per_class[0][1] == 0.0
