"""HOTA, IDF1 and J&F: stored values of TrackEval, hand-worked examples, properties, crowds."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from maskfreevis_ext.evaluation.davis import MAX_PROPOSALS
from maskfreevis_ext.evaluation.ground_truth import read_detections, read_ground_truth
from maskfreevis_ext.evaluation.metrics import (
    TRACK_METRIC_REGISTRY,
    format_scores,
    metric_names,
)
from maskfreevis_ext.evaluation.score import Scores
from tests.helpers.tracks import GOLDEN_DIR, encode, make_ground_truth, perfect_results

SIZE = 20
LEFT, RIGHT = (slice(2, 8), slice(1, 7)), (slice(2, 8), slice(11, 17))  # 6 x 6 pixels each


def box(place: tuple[slice, slice] | None) -> dict | None:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    if place is None:
        return None
    mask[place] = True
    return encode(mask)


def scene(*objects: list, crowds: tuple[list, ...] = ()) -> dict[str, Any]:
    """A ground truth of one video and class; each object is a list of places or None by frame."""
    tracks = [(places, 0) for places in objects] + [(places, 1) for places in crowds]
    length = len(tracks[0][0])
    return {
        "videos": [{"id": 1, "height": SIZE, "width": SIZE, "length": length}],
        "categories": [{"id": 1, "name": "fish"}],
        "annotations": [
            {
                "id": index + 1,
                "video_id": 1,
                "category_id": 1,
                "iscrowd": crowd,
                "segmentations": [box(place) for place in places],
            }
            for index, (places, crowd) in enumerate(tracks)
        ],
    }


def found(*tracks: list, score: float = 0.9) -> list[dict[str, Any]]:
    return [
        {
            "video_id": 1,
            "category_id": 1,
            "score": score - 0.01 * index,
            "segmentations": [box(place) for place in places],
        }
        for index, places in enumerate(tracks)
    ]


def measure(name: str, truth: dict, results: list, min_score: float = 0.3) -> Scores:
    ground_truth = read_ground_truth(truth)
    detections = read_detections(results, ground_truth)
    return TRACK_METRIC_REGISTRY.get(name)(ground_truth, detections, min_score)


class TestTrackEval:
    """Values of TrackEval 1.3.0 for tracks that jitter, vanish and change their object."""

    case = json.loads((GOLDEN_DIR / "tracking.json").read_text())
    expected = case["expected"]

    @pytest.mark.parametrize(
        ("name", "keys"),
        [("hota", ["HOTA", "DetA", "AssA", "LocA"]), ("idf1", ["IDF1", "IDP", "IDR"])],
    )
    def test_tracking_metrics_agree(self, name, keys):
        scores = measure(name, self.case["gt"], self.case["results"])
        classes = self.expected["classes"]
        for key in keys:
            mean = np.mean([classes[category][key] for category in ("1", "2")])
            assert scores.metrics[key] == pytest.approx(mean, abs=1e-9)
        assert dict(scores.per_class) == pytest.approx(
            {"fish": classes["1"][keys[0]], "crab": classes["2"][keys[0]]}, abs=1e-9
        )

    def test_j_and_f_agree(self):
        scores = measure("davis_jf", self.case["gt"], self.case["results"])
        names = {
            "J&F": "J&F",
            "J": "J-Mean",
            "F": "F-Mean",
            "J_recall": "J-Recall",
            "F_recall": "F-Recall",
        }
        expected = {own: self.expected["davis"][theirs] for own, theirs in names.items()}
        assert scores.metrics == pytest.approx(expected, abs=1e-9)


class TestByHand:
    """Examples that can be worked out on paper."""

    def test_identity_that_is_lost_half_way(self):
        """4 frames, one object, two tracks of 2 frames each."""
        truth = scene([LEFT] * 4)
        results = found([LEFT, LEFT, None, None], [None, None, LEFT, LEFT])
        hota = measure("hota", truth, results).metrics
        # Every match has an association IoU of 2 / 4.
        assert hota["DetA"] == hota["LocA"] == pytest.approx(100)
        assert hota["AssA"] == pytest.approx(50)
        assert hota["HOTA"] == pytest.approx(100 * math.sqrt(0.5))
        # One track stands for the object: 2 of 4 frames; the other's 2 frames are wrong.
        assert measure("idf1", truth, results).metrics == pytest.approx(
            {"IDF1": 50, "IDP": 50, "IDR": 50}
        )

    def test_two_objects_that_exchange_their_tracks(self):
        truth = scene([LEFT] * 4, [RIGHT] * 4)
        results = found([LEFT, RIGHT, RIGHT, RIGHT], [RIGHT, LEFT, LEFT, LEFT])
        # Right pairs share 3 of 5 frames, wrong ones 1 of 7: (6 * 3/5 + 2 * 1/7) / 8.
        association = (6 * 3 / 5 + 2 / 7) / 8
        hota = measure("hota", truth, results).metrics
        assert hota["AssA"] == pytest.approx(100 * association)
        assert hota["HOTA"] == pytest.approx(100 * math.sqrt(association))
        assert measure("idf1", truth, results).metrics["IDF1"] == pytest.approx(75)

    def test_half_of_the_mask_counts_up_to_its_iou(self):
        truth = scene([LEFT] * 3)
        half = (slice(2, 8), slice(1, 4))
        hota = measure("hota", truth, found([half] * 3)).metrics
        # IoU 0.5 reaches 10 of the 19 thresholds; LocA is 1 where there is no match.
        assert hota["HOTA"] == hota["DetA"] == pytest.approx(100 * 10 / 19)
        assert hota["LocA"] == pytest.approx(100 * (10 * 0.5 + 9) / 19)
        assert measure("idf1", truth, found([half] * 3)).metrics["IDF1"] == pytest.approx(100)

    def test_false_positive_and_missed_object(self):
        truth = scene([LEFT] * 2, [RIGHT] * 2)
        results = found([LEFT] * 2, [(slice(10, 14), slice(3, 9))] * 2)
        hota = measure("hota", truth, results).metrics
        assert hota["DetA"] == pytest.approx(100 * 2 / 6)
        assert hota["AssA"] == pytest.approx(100)
        assert measure("idf1", truth, results).metrics["IDF1"] == pytest.approx(50)

    def test_j_of_a_half_mask_and_of_an_absent_object(self):
        truth = scene([LEFT, LEFT, None])
        half = (slice(2, 8), slice(1, 4))
        scores = measure("davis_jf", truth, found([half, LEFT, None])).metrics
        assert scores["J"] == pytest.approx(100 * (0.5 + 1 + 1) / 3)
        assert scores["J_recall"] == pytest.approx(100 * 2 / 3)  # 0.5 is not above 0.5
        ghost = measure("davis_jf", truth, found([LEFT, LEFT, RIGHT])).metrics
        assert ghost["J"] == ghost["F"] == pytest.approx(100 * 2 / 3)

    def test_proposals_are_shared_out_and_left_over_ones_do_not_count(self):
        truth = scene([LEFT] * 2, [RIGHT] * 2)
        both = measure("davis_jf", truth, found([RIGHT] * 2, [LEFT] * 2, [LEFT] * 2)).metrics
        assert both["J&F"] == pytest.approx(100)
        one = measure("davis_jf", truth, found([LEFT] * 2)).metrics
        assert one["J&F"] == one["J"] == one["F"] == pytest.approx(50)
        late = measure("davis_jf", truth, found(*[[None] * 2] * MAX_PROPOSALS, [LEFT] * 2)).metrics
        assert late["J&F"] == 0


class TestRules:
    """What holds for every metric."""

    @pytest.mark.parametrize("name", ["hota", "idf1", "davis_jf"])
    def test_perfect_results_score_100_and_none_score_0(self, name):
        truth = make_ground_truth(np.random.RandomState(3))
        perfect = measure(name, truth, perfect_results(truth))
        assert all(value == pytest.approx(100) for value in perfect.metrics.values())
        nothing = measure(name, truth, [])
        if name != "davis_jf":  # where an object is absent, nothing is right
            assert nothing.metrics[nothing.main] == 0
        assert nothing.metrics[nothing.main] < perfect.metrics[perfect.main]

    @pytest.mark.parametrize("name", ["hota", "idf1", "davis_jf"])
    def test_order_of_results_and_of_objects_does_not_matter(self, name):
        case = TestTrackEval.case
        rng = np.random.RandomState(0)
        before = measure(name, case["gt"], case["results"]).metrics
        order = rng.permutation(len(case["results"]))
        objects = rng.permutation(len(case["gt"]["annotations"]))
        truth = {**case["gt"], "annotations": [case["gt"]["annotations"][i] for i in objects]}
        after = measure(name, truth, [case["results"][i] for i in order]).metrics
        assert after == pytest.approx(before)

    def test_tracks_below_the_score_are_left_out_of_tracking_metrics(self):
        truth = scene([LEFT] * 2)
        noise = found([RIGHT] * 2, score=0.2)
        for name in ("hota", "idf1"):
            assert measure(name, truth, found([LEFT] * 2) + noise).metrics[
                "HOTA" if name == "hota" else "IDF1"
            ] == pytest.approx(100)
            strict = measure(name, truth, found([LEFT] * 2) + noise, min_score=0.0)
            assert strict.metrics[strict.main] < 100

    @pytest.mark.parametrize("name", ["hota", "idf1"])
    def test_what_lies_in_a_crowd_is_neither_right_nor_wrong(self, name):
        truth = scene([LEFT] * 2, crowds=([RIGHT] * 2,))
        scores = measure(name, truth, found([LEFT] * 2, [RIGHT] * 2))
        assert scores.metrics[scores.main] == pytest.approx(100)
        scores = measure(name, truth, found([LEFT] * 2, [(slice(12, 18), slice(1, 7))] * 2))
        assert scores.metrics[scores.main] < 100

    @pytest.mark.parametrize("name", ["hota", "idf1", "davis_jf"])
    def test_ground_truth_without_objects_is_undefined(self, name):
        truth = scene([LEFT] * 2) | {"annotations": []}
        scores = measure(name, truth, found([LEFT] * 2))
        assert all(math.isnan(value) for value in scores.metrics.values())

    def test_class_without_objects_is_undefined_and_not_in_the_mean(self):
        truth = scene([LEFT] * 2)
        truth["categories"].append({"id": 2, "name": "whale"})
        scores = measure("hota", truth, [*found([LEFT] * 2), *found([RIGHT] * 2)][:1])
        assert math.isnan(dict(scores.per_class)["whale"])
        assert scores.metrics["HOTA"] == pytest.approx(100)

    def test_tables_name_the_main_value(self):
        scores = measure("hota", scene([LEFT] * 2), found([LEFT] * 2))
        text = format_scores(scores)
        assert "HOTA per class" in text
        assert "LocA" in text
        assert "class" not in format_scores(measure("davis_jf", scene([LEFT]), found([LEFT])))
        assert metric_names() == ["ytvis_ap", "hota", "idf1", "davis_jf"]
