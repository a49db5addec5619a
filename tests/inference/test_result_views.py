"""Videos and contact sheets of a results file."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest

from maskfreevis_ext.data.images import read_frame
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.drawing import color_of
from maskfreevis_ext.inference.result_views import write_result_views
from maskfreevis_ext.inference.video_io import open_frames
from tests.helpers.videos import HEIGHT, WIDTH, plain_content, rectangle, write_frames, write_json

ROW = 24 + 180 + 20 + 6  # pixels of a row of the sheet: title, frames, captions, margin


@pytest.fixture
def content() -> dict[str, Any]:
    return plain_content((4, 3), masks=True)


@pytest.fixture
def results(content) -> list[dict[str, Any]]:
    """The tracks of the data set, with scores 0.9, 0.7, 0.5 and 0.2."""
    return [
        {
            "video_id": track["video_id"],
            "category_id": track["category_id"],
            "score": value,
            "segmentations": track["segmentations"],
        }
        for track, value in zip(content["annotations"], (0.9, 0.7, 0.5, 0.2), strict=True)
    ]


def draw(tmp_path, content, results, **options):
    json_file, root = write_json(tmp_path, content), write_frames(tmp_path, content)
    return write_result_views(json_file, root, results, tmp_path / "out", **options)


def test_every_video_and_a_sheet_are_written(tmp_path, content, results):
    views = draw(tmp_path, content, results, fps=7)

    assert [path.name for path in views.videos] == ["video_1.mp4", "video_2.mp4"]
    assert [open_frames(path).num_frames for path in views.videos] == [4, 3]
    assert open_frames(views.videos[0]).fps == pytest.approx(7)
    assert views.sheet == tmp_path / "out" / "contact_sheet.png"
    assert read_frame(views.sheet).shape[0] > 4 * 180  # prediction and truth of two videos


def test_masks_lie_where_they_belong_on_enlarged_frames(tmp_path, content, results):
    views = draw(tmp_path, content, results[:1])

    picture = next(iter(open_frames(views.videos[0]))).astype(int)
    factor = picture.shape[0] // HEIGHT
    assert picture.shape[:2] == (HEIGHT * factor, WIDTH * factor)
    assert HEIGHT * factor >= 240
    plain = next(iter(open_frames(draw(tmp_path, content, []).videos[0]))).astype(int)
    change = np.abs(picture - plain).max(-1) > 40
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    inside[3:9, 2:10] = True  # the box of track 10 in frame 0
    inside = inside.repeat(factor, 0).repeat(factor, 1)
    assert change[inside].mean() > 0.7
    assert change[9 * factor + 40 :].mean() < 0.01  # below the object and a label's height


def test_weak_tracks_are_left_out(tmp_path, content, results, caplog):
    strong = read_frame(draw(tmp_path, content, results, min_score=0.6).sheet)
    weak = read_frame(draw(tmp_path, content, results[:2], min_score=0.6).sheet)

    assert (strong == weak).all()

    with caplog.at_level(logging.WARNING):
        draw(tmp_path, content, results, min_score=0.95)
    assert "no track has a score of 0.95 or more" in caplog.text


def test_ids_count_from_the_surest(tmp_path, content, results):
    """Alone, a track has the first colour; beside a surer one the second, wherever it stands."""
    late, moving = results[1], results[0]
    moving["score"], late["score"] = 0.4, 0.8
    del content["annotations"]  # with them, a track has the colour of its object

    def colours(entries: list[dict[str, Any]]) -> list[int]:
        sheet = read_frame(draw(tmp_path, content, entries, sheet_videos=1, columns=1).sheet)
        prediction = sheet[30:210]  # frame 0, where only the moving track is
        return [count(prediction, color_of(k)) for k in (1, 2)]

    assert colours([moving])[0] > 100 > colours([moving])[1]
    for entries in ([moving, late], [late, moving]):
        assert colours(entries)[0] < 100 < colours(entries)[1]


def count(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    """Pixels that have exactly this colour: outlines and labels."""
    return int((picture == color).all(-1).sum())


def sheet_rows(tmp_path, content, results) -> tuple[np.ndarray, np.ndarray]:
    """The row of predictions and that of the ground truth, video 1, the last frame only."""
    content["videos"] = content["videos"][:1]
    content["annotations"] = content["annotations"][:2]
    sheet = read_frame(draw(tmp_path, content, results, columns=2).sheet)
    first = sheet.shape[0] - 2 * ROW  # below the legend
    half = sheet.shape[1] // 2
    return tuple(sheet[top + 24 : top + 204, half + 3 : -6] for top in (first, first + ROW))


def test_prediction_has_the_colour_of_its_object(tmp_path, content, results):
    results[0]["score"], results[1]["score"] = 0.5, 0.8  # the other order than that of the ids

    predicted, true = sheet_rows(tmp_path, content, results[:2])

    for object_id in (10, 11):
        assert count(predicted, color_of(object_id)) > 100
        assert count(true, color_of(object_id)) > 100
    assert count(predicted, color_of(1)) == count(predicted, color_of(2)) == 0
    assert count(predicted, (255, 255, 255)) < 100  # letters only


def test_unmatched_prediction_and_missed_object_are_marked(tmp_path, content, results):
    results[1]["segmentations"] = [rectangle(0, 14, 6, 6)] * 4  # beside its object

    predicted, true = sheet_rows(tmp_path, content, results[:2])

    assert count(predicted, color_of(11)) == 0
    assert count(predicted, (255, 255, 255)) > 300  # outline and label
    found, missed = (change_inside(true, box) for box in ((5, 3, 8, 6), (15, 8, 10, 7)))
    assert found > 0.9
    assert missed < 0.6  # outline and label, not filled


def change_inside(row: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """Share of the pixels of a box of frame 3 that are not as ``write_frames`` made them."""
    factor = row.shape[0] / HEIGHT
    x, y, w, h = (round(value * factor) for value in box)
    part = row[y : y + h, x : x + w].astype(int)
    rows, columns = np.mgrid[y : y + h, x : x + w] / factor - 0.5
    plain = np.stack([8 * columns, 12 * rows, np.full_like(rows, 30)], axis=-1)
    return float((np.abs(part - plain).max(-1) > 40).mean())


def test_wrong_class_does_not_hide_a_match(tmp_path, content, results):
    right = sheet_rows(tmp_path, content, results[:2])[0]
    results[0]["category_id"] = 9

    wrong = sheet_rows(tmp_path, content, results[:2])[0]

    assert count(wrong, color_of(10)) > count(right, color_of(10)) > 100  # a longer label
    assert (right != wrong).any()


def test_boxes_are_shown_and_matched_where_there_are_no_masks(tmp_path, content, results):
    for track in content["annotations"]:
        del track["segmentations"]

    predicted, true = sheet_rows(tmp_path, content, results[:2])

    for row in (predicted, true):
        assert count(row, color_of(10)) > 100
        assert count(row, color_of(11)) > 100


def test_no_annotations_leave_only_predictions(tmp_path, content, results):
    with_truth = read_frame(draw(tmp_path, content, results).sheet).shape[0]
    del content["annotations"]

    sheet = read_frame(draw(tmp_path, content, results).sheet)

    assert sheet.shape[0] == 6 + 2 * ROW
    assert with_truth > 6 + 4 * ROW  # and a legend


def test_max_videos_draws_the_first(tmp_path, content, results):
    views = draw(tmp_path, content, results, max_videos=1)

    assert [path.name for path in views.videos] == ["video_1.mp4"]


FAULTS = {
    "unknown class": (lambda entry: entry.update(category_id=4), "category_id 4 is not in"),
    "frames missing": (
        lambda entry: entry["segmentations"].pop(),
        r"results\[0\]: expected segmentations to have 4 entries, .* got 3",
    ),
    "no masks": (lambda entry: entry.pop("segmentations"), "got a NoneType"),
    "no score": (lambda entry: entry.pop("score"), "expected score to be a finite number"),
    "mask of another size": (
        lambda entry: entry["segmentations"].__setitem__(2, rectangle(0, 0, 3, 3, (5, 5))),
        r"results: results\[0\], segmentations\[2\]: 'size' must be",
    ),
    "damaged mask": (
        lambda entry: entry["segmentations"].__setitem__(
            0, {"size": [HEIGHT, WIDTH], "counts": "0"}
        ),
        r"segmentations\[0\]",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(tmp_path, content, results, fault):
    damage, message = FAULTS[fault]
    results = json.loads(json.dumps(results))
    damage(results[0])

    with pytest.raises(DataError, match=message):
        draw(tmp_path, content, results)


def test_result_that_is_no_object_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"results\[0\]: expected an object, got a int"):
        draw(tmp_path, content, [3])


def test_missing_frame_is_named(tmp_path, content, results):
    json_file, root = write_json(tmp_path, content), write_frames(tmp_path, content)
    (tmp_path / "frames" / "v2" / "00001.png").unlink()

    with pytest.raises(DataError, match=r"00001\.png \(video 2, frame 1\)"):
        write_result_views(json_file, root, results, tmp_path / "out")
