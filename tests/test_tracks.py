"""Predictions, and the joined run lengths of a track's frames against bitmaps."""

from __future__ import annotations

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfreevis_ext.errors import DataError, NumericError
from maskfreevis_ext.rle import check_rle, decode_rle
from maskfreevis_ext.tracks import (
    Prediction,
    RleMasks,
    Track,
    decode_track,
    encode_track,
    make_label,
    track_iou,
    with_category_ids,
)
from tests.helpers.tracks import encode

KINDS = ("empty", "full", "noise", "boxes", "columns")


def draw_masks(rng: np.random.RandomState, kind: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Masks bool [T,H,W] with the run structure that ``kind`` names."""
    masks = np.zeros(shape, dtype=bool)
    if kind == "full":
        masks[:] = True
    elif kind == "noise":
        masks = rng.rand(*shape) < 0.5
    elif kind == "columns":  # runs that end exactly with a frame
        masks[:, :, rng.rand(shape[2]) < 0.5] = True
    elif kind == "boxes":
        for frame in masks:
            y, x = (
                np.sort(rng.randint(0, shape[1] + 1, 2)),
                np.sort(rng.randint(0, shape[2] + 1, 2)),
            )
            frame[y[0] : y[1], x[0] : x[1]] = rng.rand() < 0.7
    return masks


def track_of(masks: np.ndarray, rng: np.random.RandomState | None = None) -> Track:
    """The track of masks [T,H,W]; with ``rng``, frames come in all forms that a file may have."""
    entries: list[object] = []
    for mask in masks:
        rle = encode(mask)
        form = 0 if rng is None else rng.randint(3)
        if form == 1:
            rle["counts"] = check_rle(rle).tolist()
        elif form == 2 and not mask.any():
            rle = None
        entries.append(rle)
    return decode_track(entries, *masks.shape[1:], "here")


def side_by_side(masks: np.ndarray) -> np.ndarray:
    return np.concatenate(list(masks), axis=1)


masks_cases = given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(KINDS),
    other=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(1, 70)),
)


@settings(max_examples=150, deadline=None)
@masks_cases
def test_joined_track_equals_encoding_of_frames_side_by_side(seed, kind, other, shape):
    rng = np.random.RandomState(seed)
    masks = draw_masks(rng, kind, shape)
    masks[rng.rand(shape[0]) < 0.3] = draw_masks(rng, other, shape)[0]

    track = track_of(masks, rng)

    expected = coco_mask.encode(np.asfortranarray(side_by_side(masks).astype(np.uint8)))
    assert encode_track(track, *shape) == expected
    assert track.areas.tolist() == masks.sum((1, 2)).tolist()


@settings(max_examples=100, deadline=None)
@masks_cases
def test_track_iou_equals_iou_of_bitmaps(seed, kind, other, shape):
    rng = np.random.RandomState(seed)
    masks = [draw_masks(rng, name, shape) for name in (kind, other, kind)]
    tracks = [track_of(mask) for mask in masks]

    ious = track_iou(tracks[:2], tracks[1:])

    for row, found in enumerate(masks[:2]):
        for column, true in enumerate(masks[1:]):
            union = (found | true).sum()
            expected = (found & true).sum() / union if union else 0.0
            assert ious[row, column] == pytest.approx(expected, abs=1e-15)
    joined = [encode_track(track, *shape) for track in tracks]
    np.testing.assert_allclose(ious, coco_mask.iou(joined[:2], joined[1:], [0, 0]), atol=1e-15)


def test_track_iou_counts_beyond_32_bits():
    num_frames, height, width = 40, 16384, 16384  # 1e10 pixels
    full = {"size": [height, width], "counts": [0, height * width]}
    half = {"size": [height, width], "counts": [height * width // 2, height * width // 2]}

    ious = track_iou(
        [decode_track([half] * num_frames, height, width, "a")],
        [decode_track([full] * num_frames, height, width, "b")],
    )

    assert ious.tolist() == [[0.5]]


def test_mean_area_leaves_empty_frames_out():
    masks = np.zeros((4, 5, 6), dtype=bool)
    masks[0, :2, :2] = masks[2, 0, :2] = True

    assert track_of(masks).mean_area == 3.0
    assert track_of(np.zeros((2, 5, 6), dtype=bool)).mean_area == 0.0


def test_polygons_are_rasterised_as_by_pycocotools():
    polygons = [[1, 1, 8, 1, 8, 6, 1, 6], [10.5, 2.0, 14.0, 2.0, 12.0, 7.5]]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 9, 16)))

    track = decode_track([polygons, None], 9, 16, "here")

    assert track.areas.tolist() == [expected.sum(), 0]


def malformed() -> dict[str, object]:
    good = encode(np.eye(6, 7, dtype=bool))
    return {
        "empty counts": {"size": [6, 7], "counts": ""},
        "byte below the alphabet": {"size": [6, 7], "counts": "0!" + good["counts"]},
        "byte above the alphabet": {"size": [6, 7], "counts": good["counts"] + "~"},
        "not ASCII": {"size": [6, 7], "counts": "0é"},
        "cut off number": {"size": [6, 7], "counts": good["counts"] + "P"},
        "too few pixels": {"size": [6, 7], "counts": good["counts"][:-1]},
        "too many pixels": {"size": [6, 7], "counts": "o0"},
        "negative run": {"size": [6, 7], "counts": "0O[1"},
        "endless number": {"size": [6, 7], "counts": "oooooooooooo0"},
        "negative plain run": {"size": [6, 7], "counts": [43, -1]},
        "plain runs of text": {"size": [6, 7], "counts": ["42"]},
        "other size": encode(np.eye(7, 6, dtype=bool)),
        "size of zero": {"size": [0, 0], "counts": ""},
        "no counts": {"size": [6, 7]},
        "text": "0123",
        "polygon with NaN": [[0, 0, float("nan"), 1, 2, 2]],
        "polygon far away": [[0, 0, 1e12, 1, 2, 2]],
    }


@pytest.mark.parametrize("fault", malformed())
def test_malformed_mask_is_refused_with_its_frame(fault):
    good = encode(np.eye(6, 7, dtype=bool))

    with pytest.raises(DataError, match=r"results\[3\]: segmentations\[1\]"):
        decode_track([good, malformed()[fault], good], 6, 7, "results[3]")


@settings(max_examples=200, deadline=None)
@given(data=st.binary(min_size=1, max_size=12), seed=st.integers(0, 2**31 - 1))
def test_damaged_counts_are_refused_or_sum_to_the_frame(data, seed):
    rng = np.random.RandomState(seed)
    counts = bytearray(encode(rng.rand(7, 9) < 0.5)["counts"].encode())
    place = rng.randint(len(counts))
    counts[place : place + rng.randint(3)] = bytes(48 + byte % 64 for byte in data)

    try:
        track = decode_track([{"size": [7, 9], "counts": bytes(counts)}], 7, 9, "here")
    except DataError:
        return
    assert track.runs.sum() == 63
    assert (track.runs[1:] > 0).all()
    assert coco_mask.decode(encode_track(track, 1, 7, 9)).sum() == track.areas.sum()


def test_label_texts():
    assert make_label("fish", 3) == "fish #3"
    assert make_label("fish", 3, 0.876) == "fish #3 0.88"


class TestPrediction:
    """A model's output, which need not be sorted."""

    @pytest.fixture
    def masks(self) -> torch.Tensor:
        masks = torch.rand(4, 2, 12, 16, generator=torch.manual_seed(0)) < 0.5
        masks[3, 0] = False
        return masks

    @pytest.fixture
    def prediction(self, masks) -> Prediction:
        return Prediction.from_output(
            {
                "pred_scores": [0.6, 0.2, 0.9, 0.6],
                "pred_labels": [5, 0, 1, 1],
                "pred_masks": list(masks),
            }
        )

    def test_tracks_are_sorted_once_and_numbered_from_1(self, prediction):
        assert prediction.scores == [0.9, 0.6, 0.6, 0.2]
        assert prediction.labels == [1, 5, 1, 0]  # equal scores keep their order
        assert prediction.numbers == [1, 2, 3, 4]

    def test_selection_keeps_the_numbers(self, prediction):
        assert prediction.select(0.5).numbers == [1, 2, 3]
        assert prediction.select(labels={0, 5}).numbers == [2, 4]
        assert prediction.select(top_k=2).numbers == [1, 2]
        assert prediction.select(0.3, labels=[1], top_k=1).numbers == [1]
        assert len(prediction.select(0.95)) == 0
        assert len(prediction) == 4

    def test_items_are_visible_objects_with_the_surest_last(self, prediction, masks):
        items = prediction.select(0.5).items(1, ["cat", "dog"])

        assert [item.track_id for item in items] == [3, 2, 1]
        assert [item.label for item in items] == ["dog #3 0.60", "class 5 #2 0.60", "dog #1 0.90"]
        assert (items[2].mask == masks[2, 1].numpy()).all()
        assert [item.track_id for item in prediction.items(0)] == [4, 2, 1]  # the third is absent
        assert prediction.items(0)[0].label == "class 0 #4 0.20"

    def test_results_hold_every_frame(self, prediction, masks):
        results = prediction.results(7)

        assert [entry["video_id"] for entry in results] == [7] * 4
        assert [entry["category_id"] for entry in results] == prediction.labels
        decoded = [decode_rle(rle) for rle in results[0]["segmentations"]]
        np.testing.assert_array_equal(decoded, masks[2].numpy())

    def test_encoded_masks_give_the_same_items_and_results(self, prediction):
        entries = prediction.results(7)
        tracks = [RleMasks(entry["segmentations"], (12, 16), "here") for entry in entries]
        again = Prediction.sort(prediction.scores, prediction.labels, tracks)

        assert again.results(7) == entries
        for one, other in zip(again.items(1), prediction.items(1), strict=True):
            assert one.label == other.label
            assert (one.mask == other.mask).all()

    def test_category_ids_take_the_place_of_labels(self, prediction):
        entries = with_category_ids(prediction.results(7), {0: 3, 1: 8})

        assert [entry["category_id"] for entry in entries] == [8, 8, 3]  # no class 5

    def test_lists_of_different_lengths_are_refused(self, masks):
        with pytest.raises(ValueError, match="got 1, 2 and 4"):
            Prediction.sort([0.5], [1, 2], list(masks))

    def test_no_tracks(self):
        empty = Prediction.sort([], [], [])

        assert empty.items(0) == empty.results(1) == []


def test_malformed_encoded_mask_names_its_frame():
    masks = RleMasks([None, {"size": [2, 3], "counts": "0"}], (2, 3), "results[4]")

    assert len(masks) == 2
    assert not masks[0].any()
    with pytest.raises(DataError, match=r"results\[4\], segmentations\[1\]"):
        masks[1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(NumericError, match="Scores of tracks"):
        Prediction.sort([0.5, bad], [0, 1], [np.zeros((1, 2, 2), bool)] * 2)
