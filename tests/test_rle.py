"""RLEs: valid ones pass unchanged, broken ones never reach pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util

from maskfreevis_ext import rle as rle_module
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.rle import (
    MalformedRunsError,
    check_rle,
    clean_rle,
    decode_counts,
    decode_rle,
    encode_masks,
    is_finite_number,
    merge_rles,
)


def _encode(mask: np.ndarray) -> dict:
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"]}


def _random_mask(rng: np.random.Generator) -> np.ndarray:
    height, width = rng.integers(1, 70, size=2)
    kind = rng.integers(4)
    if kind == 0:  # noise: many short runs
        return rng.random((height, width)) < rng.random()
    mask = np.full((height, width), kind == 1)
    y, x = rng.integers(height), rng.integers(width)
    mask[y : y + rng.integers(1, 40), x : x + rng.integers(1, 40)] ^= True
    return mask


def _runs(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


@pytest.mark.parametrize("seed", range(4))
def test_clean_rle_accepts_500_random_masks_in_both_forms(seed):
    rng = np.random.default_rng(seed)
    for _ in range(500):
        mask = _random_mask(rng)
        valid = _encode(mask)
        runs = check_rle(valid, mask.shape)
        assert runs.tolist() == _runs(mask)
        for counts in (valid["counts"], valid["counts"].decode(), _runs(mask)):
            clean, area = clean_rle({"size": list(mask.shape), "counts": counts}, mask.shape)
            assert area == mask.sum()
            assert clean == valid


def test_clean_rle_accepts_the_largest_mask_and_long_runs():
    side = rle_module.MAX_SIDE
    clean, area = clean_rle({"size": [side, side], "counts": [5, side * side - 5]})
    assert area == side * side - 5
    assert check_rle(clean).tolist() == [5, side * side - 5]


def test_clean_rle_merges_empty_inner_runs():
    clean, area = clean_rle({"size": [2, 3], "counts": [0, 0, 2, 0, 0, 1, 0, 2, 0, 1, 0]})
    assert area == 4
    np.testing.assert_array_equal(mask_util.decode(clean), [[0, 1, 1], [0, 1, 1]])
    np.testing.assert_array_equal(mask_util.toBbox(clean), [1, 0, 2, 2])


BAD_RLES = {
    "not an object": 5,
    "a string": "abc",
    "no size": {"counts": [6]},
    "no counts": {"size": [2, 3]},
    "size of one number": {"size": [6], "counts": [6]},
    "size of text": {"size": ["2", "3"], "counts": [6]},
    "size of floats": {"size": [2.0, 3.0], "counts": [6]},
    "size of booleans": {"size": [True, True], "counts": [1]},
    "zero size": {"size": [0, 0], "counts": ""},
    "negative size": {"size": [-2, -3], "counts": [6]},
    "huge size": {"size": [10**6, 10**6], "counts": [10**12]},
    "empty counts": {"size": [1, 1], "counts": b""},
    "empty list": {"size": [1, 1], "counts": []},
    "counts of another type": {"size": [2, 3], "counts": 6},
    "null counts": {"size": [2, 3], "counts": None},
    "too short": {"size": [2, 3], "counts": [2, 3]},
    "too long": {"size": [2, 3], "counts": [2, 5]},
    "negative run": {"size": [2, 3], "counts": [-2, 8]},
    "float run": {"size": [2, 3], "counts": [2.0, 4.0]},
    "boolean run": {"size": [2, 3], "counts": [True, 5]},
    "text run": {"size": [2, 3], "counts": ["2", 4]},
    "nested run": {"size": [2, 3], "counts": [[2], 4]},
    "run beyond int64": {"size": [2, 3], "counts": [10**30, 4]},
    "too many runs": {"size": [2, 3], "counts": [0] * 1000 + [6]},
    "byte below 48": {"size": [2, 3], "counts": b"2/"},
    "byte above 111": {"size": [2, 3], "counts": b"2p"},
    "not ascii": {"size": [2, 3], "counts": "2é"},
    "zero byte": {"size": [2, 3], "counts": b"2\x004"},
    "open number": {"size": [2, 3], "counts": b"2o"},
    "number without end": {"size": [2, 3], "counts": b"o" * 40},
    "number too wide": {"size": [2, 3], "counts": b"ooooooooo0"},
    "negative compressed run": {"size": [2, 3], "counts": b"@8"},
    "endless zeros": {"size": [2, 3], "counts": b"0" * 1000 + b"6"},
}


@pytest.mark.parametrize("case", BAD_RLES)
def test_check_rle_refuses_with_the_place(case):
    with pytest.raises(DataError, match=r"^a\.json: annotations\[3\]"):
        check_rle(BAD_RLES[case], where="a.json: annotations[3]")


def test_check_rle_refuses_another_size_than_the_frame():
    valid = _encode(np.ones((2, 3)))
    with pytest.raises(DataError, match=r"\[3, 2\].*\[2, 3\]"):
        check_rle(valid, (3, 2))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_rle_is_refused_or_decodes_to_its_own_area(data):
    seed = data.draw(st.integers(0, 10**6))
    mask = _random_mask(np.random.default_rng(seed))
    rle = _encode(mask)
    counts = bytearray(rle["counts"])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(counts) - 1, 0)))
        kind = data.draw(st.sampled_from(["change", "cut", "insert", "size"]))
        if kind == "change" and counts:
            counts[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del counts[at:]
        elif kind == "insert":
            counts[at:at] = data.draw(st.binary(max_size=8))
        else:
            rle["size"] = data.draw(st.lists(st.integers(-1, 80), max_size=3))
    rle["counts"] = bytes(counts)
    try:
        clean, area = clean_rle(rle)
    except DataError:
        return
    decoded = mask_util.decode(clean)
    assert list(decoded.shape) == rle["size"]
    assert decoded.sum() == area == mask_util.area(clean)
    x, y, w, h = mask_util.toBbox(clean)
    assert 0 <= x <= x + w <= rle["size"][1]
    assert 0 <= y <= y + h <= rle["size"][0]
    assert mask_util.area(mask_util.merge([clean, clean])) == area


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(1, 12), st.integers(1, 12))
def test_random_bytes_never_reach_pycocotools_unchecked(counts, height, width):
    try:
        clean, area = clean_rle({"size": [height, width], "counts": counts})
    except DataError:
        return
    assert mask_util.decode(clean).sum() == area


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 8, 4)])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_encode_masks_is_undone_by_decoding(shape, as_tensor):
    masks = np.random.default_rng(0).random(shape) < 0.5

    rles = encode_masks(torch.from_numpy(masks) if as_tensor else masks)

    assert len(rles) == shape[0]
    assert all(rle["size"] == list(shape[1:]) for rle in rles)
    assert all(isinstance(rle["counts"], str) for rle in rles)
    np.testing.assert_array_equal([decode_rle(rle) for rle in rles], masks)


def test_faulty_mask_of_many_is_named():
    good = _encode(np.eye(6, 7, dtype=bool))["counts"]
    for bad in (b"", b"!", good + b"P", b"o" * 40 + b"0", b"@8", b"o0"):
        with pytest.raises(MalformedRunsError) as error:
            decode_counts([good, good, bad, good, bad], 42)
        assert error.value.index == 2


def test_decode_rle_gives_booleans():
    mask = np.eye(5, 7, dtype=bool)
    decoded = decode_rle(_encode(mask))
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, True),
        (-2.5, True),
        (True, False),
        (None, False),
        ("1", False),
        (float("nan"), False),
        (float("-inf"), False),
        (10**400, False),
    ],
)
def test_is_finite_number(value, expected):
    assert is_finite_number(value) is expected


@pytest.mark.parametrize("count", [1, 2, 16, 17, 300])
def test_merge_rles_is_the_union(count):
    rng = np.random.default_rng(count)
    masks = rng.random((count, 9, 11)) < 3 / count / 10
    merged = merge_rles([_encode(mask) for mask in masks])
    np.testing.assert_array_equal(decode_rle(merged), masks.any(axis=0))
    assert merged["size"] == [9, 11]
