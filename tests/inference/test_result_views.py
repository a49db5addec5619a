"""Videos and contact sheets of a results file."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pytest

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.result_views import write_result_views
from maskfreevis_ext.inference.video_io import open_frames, read_frame
from maskfreevis_ext.inference.visualize import color_of
from tests.helpers.videos import HEIGHT, WIDTH, plain_content, rectangle, write_frames, write_json


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

    def colours(entries: list[dict[str, Any]]) -> list[int]:
        sheet = read_frame(draw(tmp_path, content, entries, sheet_videos=1, columns=1).sheet)
        prediction = sheet[30:210]  # frame 0, where only the moving track is
        return [int((prediction == color_of(k)).all(-1).sum()) for k in (1, 2)]

    assert colours([moving])[0] > 100 > colours([moving])[1]
    for entries in ([moving, late], [late, moving]):
        assert colours(entries)[0] < 100 < colours(entries)[1]


def test_boxes_are_shown_where_there_are_no_masks(tmp_path, content, results):
    for track in content["annotations"]:
        del track["segmentations"]

    sheet = read_frame(draw(tmp_path, content, results).sheet)

    truth = sheet[30 + 210 : 30 + 2 * 210]
    assert (truth == color_of(10)).all(-1).sum() > 100


def test_no_annotations_leave_only_predictions(tmp_path, content, results):
    two_rows = read_frame(draw(tmp_path, content, results).sheet).shape[0]
    del content["annotations"]

    sheet = read_frame(draw(tmp_path, content, results).sheet)

    assert sheet.shape[0] == pytest.approx(two_rows / 2, abs=10)


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
        r"video 1, track dog #1 0\.90, segmentations\[2\]",
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
