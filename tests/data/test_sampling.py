"""Clips: distinct frames while there are any, near the reference, sorted in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfreevis_ext.data.sampling import sample_clip


@settings(max_examples=300, deadline=None)
@given(
    length=st.integers(1, 12),
    num_frames=st.integers(1, 14),
    frame_range=st.integers(0, 6),
    seed=st.integers(0, 1000),
    shuffle=st.booleans(),
)
def test_sample_clip_keeps_its_promises(length, num_frames, frame_range, seed, shuffle):
    rng = np.random.RandomState(seed)
    clip = sample_clip(length, num_frames, frame_range, rng, shuffle=shuffle)
    assert len(clip) == num_frames
    assert all(type(t) is int and 0 <= t < length for t in clip)
    counts = np.bincount(clip, minlength=length)
    assert counts.max() <= -(-num_frames // length)
    if num_frames > length:
        assert counts.min() >= num_frames // length
    if not shuffle:
        assert clip == sorted(clip)
    reach = max(frame_range, num_frames - 1)  # further only where the window is too small
    assert max(clip) - min(clip) <= 2 * reach


def test_sample_clip_stays_in_the_window_where_it_is_large_enough():
    rng = np.random.RandomState(0)
    for _ in range(300):
        clip = sample_clip(100, 3, 4, rng)
        assert any(all(abs(t - reference) <= 4 for t in clip) for reference in clip)


def test_sample_clip_takes_the_nearest_frames_where_the_window_is_too_small():
    rng = np.random.RandomState(0)
    for _ in range(50):
        clip = sample_clip(40, 5, 1, rng, object_frames=[20])
        assert clip == [18, 19, 20, 21, 22]
    assert sample_clip(40, 4, 1, rng, object_frames=[0]) == [0, 1, 2, 3]
    assert sample_clip(40, 4, 0, rng, object_frames=[39]) == [36, 37, 38, 39]


@pytest.mark.parametrize("num_frames", range(1, 9))
def test_sample_clip_of_a_one_frame_video_repeats_it(num_frames):
    assert sample_clip(1, num_frames, 5, np.random.RandomState(0)) == [0] * num_frames


def test_sample_clip_longer_than_the_video_uses_every_frame():
    rng = np.random.RandomState(0)
    assert sample_clip(3, 3, 0, rng) == [0, 1, 2]
    assert sample_clip(3, 6, 0, rng) == [0, 0, 1, 1, 2, 2]
    assert {tuple(sample_clip(3, 4, 0, rng)) for _ in range(50)} == {
        (0, 0, 1, 2),
        (0, 1, 1, 2),
        (0, 1, 2, 2),
    }


def test_reference_frame_is_uniform():
    rng = np.random.RandomState(0)
    counts = np.bincount([sample_clip(10, 1, 5, rng)[0] for _ in range(5000)], minlength=10)
    assert counts.min() > 400
    assert counts.max() < 600


def test_clip_shows_an_object_where_the_video_does():
    rng = np.random.RandomState(0)
    for _ in range(100):
        assert 7 in sample_clip(30, 3, 5, rng, object_frames=[7])
    assert len(sample_clip(30, 3, 5, rng, object_frames=[])) == 3


def test_shuffle_changes_the_order_only():
    clips = [sample_clip(10, 4, 5, np.random.RandomState(s), shuffle=True) for s in range(30)]
    plain = [sample_clip(10, 4, 5, np.random.RandomState(s)) for s in range(30)]
    assert [sorted(clip) for clip in clips] == plain
    assert clips != plain


def test_equal_seeds_give_equal_clips():
    first, second = np.random.RandomState(5), np.random.RandomState(5)
    for _ in range(20):
        assert sample_clip(20, 4, 5, first) == sample_clip(20, 4, 5, second)


@pytest.mark.parametrize("arguments", [(0, 2, 5), (4, 0, 5), (4, 2, -1)])
def test_sample_clip_refuses_impossible_numbers(arguments):
    with pytest.raises(ValueError, match="Expected length"):
        sample_clip(*arguments, np.random.RandomState(0))
