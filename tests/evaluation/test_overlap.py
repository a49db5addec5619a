"""Overlap of tracks over a video and in each frame, against bitmaps."""

from __future__ import annotations

import numpy as np
import pytest

from maskfreevis_ext.evaluation.ground_truth import Video
from maskfreevis_ext.evaluation.overlap import frame_ious, iou_of_tracks, video_iou
from maskfreevis_ext.rle import decode_rle, encode_masks
from maskfreevis_ext.tracks import Track, decode_track, track_frames

HEIGHT, WIDTH = 6, 9


def tracks(count: int, length: int, seed: int) -> tuple[np.ndarray, list[Track]]:
    """Random masks (N, T, H, W), some of them empty or full, and the same as tracks."""
    rng = np.random.default_rng(seed)
    masks = rng.random((count, length, HEIGHT, WIDTH)) > 0.6
    masks[0, 0], masks[-1, -1] = False, True
    return masks, [decode_track(encode_masks(one), HEIGHT, WIDTH, "here") for one in masks]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_frames_of_a_track_are_its_masks(length):
    masks, joined = tracks(3, length, 0)
    for mask, track in zip(masks, joined, strict=True):
        frames = track_frames(track, length, HEIGHT, WIDTH)
        assert np.array_equal([decode_rle(frame) for frame in frames], mask)


def test_ious_equal_those_of_bitmaps():
    length = 4
    masks, joined = tracks(3, length, 1)
    others, wanted = tracks(2, length, 2)
    video = Video(HEIGHT, WIDTH, length)
    both = (masks[:, None] & others[None]).sum((-2, -1))  # (D, G, T)
    either = (masks[:, None] | others[None]).sum((-2, -1))
    by_frame = np.divide(both, either, out=np.zeros(both.shape), where=either > 0)
    assert frame_ious(joined, wanted, video) == pytest.approx(by_frame.transpose(2, 0, 1))
    areas = masks.sum((-2, -1))[:, None]
    share = np.divide(both, areas, out=np.zeros(both.shape), where=areas > 0)
    found = frame_ious(joined, wanted, video, over_detection=True)
    assert found == pytest.approx(share.transpose(2, 0, 1))
    whole = both.sum(-1) / either.sum(-1)
    assert iou_of_tracks(joined, wanted, video) == pytest.approx(whole)
    assert video_iou(joined[1], wanted[0]) == pytest.approx(whole[1, 0])


def test_nothing_to_compare():
    _, joined = tracks(2, 3, 0)
    assert frame_ious([], joined, Video(HEIGHT, WIDTH, 3)).shape == (3, 0, 2)
    nothing = np.zeros((3, HEIGHT, WIDTH), dtype=bool)
    empty = decode_track(encode_masks(nothing), HEIGHT, WIDTH, "here")
    assert video_iou(empty, empty) == 1
    assert video_iou(empty, joined[0]) == 0
