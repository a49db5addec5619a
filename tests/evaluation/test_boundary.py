"""Boundary F of masks and of tracks."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.evaluation import boundary
from maskfreevis_ext.evaluation.boundary import boundary_f, outline, score_boundaries
from maskfreevis_ext.tracks import decode_track, track_masks
from tests.helpers.videos import plain_content, rectangle


def _disk(radius: float, size: int = 200) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size / 2
    return x**2 + y**2 <= radius**2


def test_examples():
    assert doctest.testmod(boundary).failed == 0


def test_outlines_within_the_tolerance_agree():
    # 0.008 of the diagonal of 200 x 200 is 2.26, rounded up to 3 pixels
    assert boundary_f(_disk(50), _disk(50)) == 1
    assert boundary_f(_disk(50), _disk(52)) == 1
    assert boundary_f(_disk(50), _disk(58)) == 0
    assert boundary_f(_disk(50), _disk(58), tolerance=0.04) == 1


def test_f_is_the_harmonic_mean_by_a_literal_count():
    first, second = _disk(40, 100), np.roll(_disk(40, 100), 5, axis=0)
    points = [np.argwhere(outline(mask)) for mask in (first, second)]
    apart = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(-1))
    precision, recall = (apart.min(1) <= 2).mean(), (apart.min(0) <= 2).mean()
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_f(first, second) == pytest.approx(expected)


def test_cut_out_masks_score_as_the_whole_image_does():
    """Outlines and distances are looked for around the masks only, and by distances."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        mask, truth = np.zeros((2, 30, 40), dtype=bool)
        for one in (mask, truth):
            for _ in range(rng.integers(3)):
                y, x, h, w = rng.integers((0, 0, 1, 1), (30, 40, 20, 25))
                one[y : y + h, x : x + w] = True
        outlines = [np.argwhere(outline(one)) for one in (mask, truth)]
        if not all(map(len, outlines)):
            assert boundary_f(mask, truth) == (len(outlines[0]) == len(outlines[1]))
            continue
        apart = ((outlines[0][:, None] - outlines[1][None]) ** 2).sum(-1)
        precision, recall = (apart.min(1) <= 4).mean(), (apart.min(0) <= 4).mean()
        total = precision + recall
        expected = 2 * precision * recall / total if total else 0
        assert boundary_f(mask, truth, tolerance=0.03) == pytest.approx(expected)  # 2 pixels


def test_empty_masks():
    empty = np.zeros((20, 20), dtype=bool)
    assert boundary_f(empty, empty) == 1
    assert boundary_f(empty, _disk(5, 20)) == 0
    assert boundary_f(_disk(5, 20), empty) == 0
    with pytest.raises(ValueError, match="one size"):
        boundary_f(empty, empty[:10])


def test_masks_of_a_track_come_back():
    masks = np.random.default_rng(0).random((3, 5, 7)) > 0.5
    masks[1] = False
    from maskfreevis_ext.rle import encode_masks

    track = decode_track(encode_masks(masks), 5, 7, "here")
    assert (track_masks(track, 3, 5, 7) == masks).all()


def _result(video_id: int, masks: list, category_id: int = 3) -> dict:
    return {
        "video_id": video_id,
        "category_id": category_id,
        "score": 0.5,
        "segmentations": masks,
    }


def test_each_object_gets_its_best_track_whatever_its_class():
    truth = plain_content((4,), masks=True)
    tracks = [annotation["segmentations"] for annotation in truth["annotations"]]
    results = [_result(1, tracks[1], 7), _result(1, tracks[0], 3)]
    perfect = score_boundaries(truth, results)
    assert (perfect.boundary_f, perfect.iou, perfect.num_objects) == (100, 100, 2)

    shifted = [rectangle(2 + t, 9, 8, 6) for t in range(4)]  # below object 0, no overlap with it
    one = score_boundaries(truth, [_result(1, tracks[1]), _result(1, shifted)])
    assert one.iou == 50
    assert one.boundary_f == 50

    late = [None, *tracks[0][1:]]  # one of the four frames is missing
    partly = score_boundaries(truth, [_result(1, tracks[1]), _result(1, late)])
    assert partly.iou == pytest.approx((100 + 75) / 2)
    assert partly.boundary_f == pytest.approx((100 + 75) / 2)


def test_nothing_found_is_zero_and_crowds_do_not_count():
    truth = plain_content((4,), masks=True)
    nothing = score_boundaries(truth, [])
    assert (nothing.boundary_f, nothing.iou) == (0, 0)
    for annotation in truth["annotations"]:
        annotation["iscrowd"] = 1
    assert math.isnan(score_boundaries(truth, []).boundary_f)


def test_ground_truth_without_masks_is_refused():
    with pytest.raises(DataError, match="no segmentations"):
        score_boundaries(plain_content((4,)), [])
