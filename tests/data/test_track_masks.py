"""Masks of a track that are checked together equal those that are checked one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfreevis_ext.data.track_masks import check_masks
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.polygons import segmentation_to_rle
from maskfreevis_ext.rle import encode_masks

H, W = 6, 7
POLYGON = [[1, 1, 4, 1, 4, 4, 1, 4]]
EMPTY_RUNS = {"size": [H, W], "counts": [0, 5, 0, 0, 0, 5, H * W - 10]}


def _mask(seed):
    rle = encode_masks(np.random.RandomState(seed).rand(1, H, W) < 0.4)[0]
    return rle if seed % 2 else {**rle, "counts": rle["counts"].encode()}


_ANY = st.one_of(
    st.none(),
    st.integers(0, 2**31).map(_mask),
    st.sampled_from(
        [
            [],
            POLYGON,
            [[1, 2]],
            EMPTY_RUNS,
            {"size": [H, W], "counts": f"0{chr(48 + 5)}000{chr(48 + 5)}"},  # damaged
            {"size": [W, H], "counts": "1"},
            {"size": [H, True], "counts": "1"},
            {"size": [H, W], "counts": "\xe9"},
            {"size": [H, W], "counts": ""},
            {"size": [H, W]},
            "no mask",
        ]
    ),
)


def _one_by_one(masks):
    return [segmentation_to_rle(mask, H, W, f"frame {t}") for t, mask in enumerate(masks)]


def _outcome(function, *args):
    """What a function gives, or the message of its error."""
    try:
        return function(*args)
    except DataError as error:
        return str(error)


@settings(max_examples=200, deadline=None)
@given(masks=st.lists(_ANY, max_size=6))
def test_together_is_the_same_as_one_by_one(masks):
    together = _outcome(check_masks, masks, H, W, "frame {}".format)
    assert together == _outcome(_one_by_one, masks)


def test_empty_runs_inside_compressed_counts_are_removed():
    # runs 3, 0, 0, 2, 37: pycocotools loops forever on the pair of empty ones
    counts = b"3" + b"0" + b"0" + b"2" + bytes([48 + 0x20 + (37 & 31), 48 + (37 >> 5)])
    expected = _one_by_one([{"size": [H, W], "counts": counts}])
    assert check_masks([{"size": [H, W], "counts": counts}], H, W, str) == expected
