"""Videos compared with their objects: quality, confusion of classes, pictures."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from maskfreevis_ext.data import load_ytvis_json
from maskfreevis_ext.data.categories import categories_of_file
from maskfreevis_ext.engine.report.clips import NOTHING, clips_html, compare, confusion_html
from maskfreevis_ext.inference.result_views import read_predictions
from maskfreevis_ext.tracks import Prediction
from tests.helpers.videos import plain_content, rectangle, write_frames, write_json

NAMES = ["cat", "dog", "emu"]


@pytest.fixture
def scene(tmp_path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Dataset dicts of two videos with the objects dog and cat each, and their JSON."""
    content = plain_content((4, 3), masks=True)
    root = write_frames(tmp_path, content)
    return load_ytvis_json(write_json(tmp_path, content), root), content


def predict(scene, *changes) -> dict[int, Prediction]:
    """The truth as predictions, after changes of its results."""
    videos, content = scene
    results = [
        {
            "video_id": each["video_id"],
            "category_id": each["category_id"],
            "score": 0.9,
            "segmentations": copy.deepcopy(each["segmentations"]),
        }
        for each in content["annotations"]
    ]
    for change in changes:
        change(results)
    return read_predictions(results, videos, categories_of_file(content), 0.3, "results")


def test_quality_is_1_for_the_truth_and_counts_what_is_wrong(scene):
    videos, _ = scene
    clip = compare(videos[0], predict(scene)[1])
    assert clip.quality == pytest.approx(1)
    assert sorted(clip.pairs) == [(0, 0), (1, 1)]

    def spoil(results):
        results[0]["category_id"] = 9  # the dog is taken for an emu
        results[1]["segmentations"] = [rectangle(0, 0, 2, 2)] * 4  # the cat is missed

    clip = compare(videos[0], predict(scene, spoil)[1])
    assert sorted(clip.pairs) == [(NOTHING, 0), (0, NOTHING), (1, 2)]
    assert clip.quality == pytest.approx(1 / 2)  # one match; 2 objects, 2 tracks


def test_nothing_there_and_nothing_predicted_is_right(scene):
    videos, _ = scene
    empty = {**videos[0], "annotations": [[] for _ in range(4)]}
    nothing = Prediction.sort([], [], [])
    assert compare(empty, nothing).quality == 1
    assert compare(videos[0], nothing).quality == 0


def test_page_has_confusion_and_pictures_of_best_and_worst(scene):
    videos, _ = scene

    def spoil(results):
        del results[2]

    page = "\n".join(clips_html(videos, predict(scene, spoil), NAMES))
    best, worst = page.index("Best 1: quality 1.00"), page.index("Worst 1: quality 0.67")
    assert best < page.index("video 1 (v1)") < worst < page.index("video 2 (v2)")
    assert page.count("data:image/jpeg;base64,") == 2 * (4 + 3)
    assert "<th>missed</th>" in page


def test_videos_without_annotations_are_only_drawn(scene):
    videos, _ = scene
    predictions = predict(scene)
    for video in videos:
        video["annotations"] = [[] for _ in range(video["length"])]
    page = "\n".join(clips_html(videos, predictions, NAMES))
    assert "Confusion" not in page
    assert page.count("<img") == 4 + 3


def test_confusion_of_many_classes_lists_the_most_frequent_mistakes():
    names = [f"class <{i}>" for i in range(40)]
    text = confusion_html([(3, 4)] * 5 + [(2, 2)] * 7 + [(NOTHING, 1)], names)
    assert "7 of 13 with the right class" in text
    assert text.index("class &lt;4&gt;") < text.index("nothing")
    assert "<td>5</td>" in text
    few = confusion_html([(0, 1)], ["<a>", "b"])
    assert "&lt;a&gt;" in few
    assert ">1</td>" in few
