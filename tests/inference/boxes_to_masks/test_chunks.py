"""Chunks: every box is in one core, frames are read once, memory has an upper limit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from maskfreevis_ext.inference.boxes_to_masks.chunks import (
    chunk_length,
    count_work,
    fit_steps,
    plan_chunks,
    read_chunks,
)


class _Numbers:
    """Frames that are their own number; remembers what was read."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            self.seen.append(index)
            yield np.full((1, 1, 3), index)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 60), st.integers(1, 12))
def test_every_missing_mask_is_in_the_core_of_one_chunk(
    seed: int, objects: int, frames: int, length: int
) -> None:
    random = np.random.RandomState(seed)
    present = random.rand(objects, frames) < 0.6
    missing = present & (random.rand(objects, frames) < 0.7)
    chunks = plan_chunks(missing, present, length)
    covered = np.zeros_like(missing, dtype=int)
    for chunk in chunks:
        core = chunk.frames[chunk.core]
        assert len(core) <= length
        assert chunk.frames == sorted(set(chunk.frames))
        covered[np.ix_(chunk.objects, core)] += 1
        assert missing[np.ix_(chunk.objects, core)].any(1).all()
    assert (covered[missing] == 1).all()

    source = _Numbers()
    for chunk, pictures in zip(chunks, read_chunks(chunks, source), strict=True):
        assert [int(picture[0, 0, 0]) for picture in pictures] == chunk.frames
    assert len(source.seen) == len(set(source.seen))
    assert len({frame for chunk in chunks for frame in chunk.far}) <= 12


def test_frames_that_need_nothing_are_not_read() -> None:
    present = np.zeros((2, 1000), dtype=bool)
    present[0, 10:20] = present[1] = True
    missing = present.copy()
    missing[1] = False
    chunks = plan_chunks(missing, present, 40)
    assert len(chunks) == 1
    assert chunks[0].frames == list(range(10, 20))
    assert chunks[0].objects == [0]
    assert plan_chunks(np.zeros_like(missing), present, 40) == []


def test_chunks_are_shorter_for_large_frames_and_crowds() -> None:
    assert chunk_length(1, (360, 640)) == 40
    assert 10 < chunk_length(100, (360, 640)) < 20
    assert chunk_length(1, (2160, 3840)) < 20
    assert chunk_length(1000, (2160, 3840)) == 8


def test_later_fits_have_fewer_steps() -> None:
    missing = np.ones((2, 30), dtype=bool)
    chunks = plan_chunks(missing, missing, 10)
    boxes, steps = count_work(chunks, missing, 200)
    assert boxes == 60
    assert steps == 2 * (200 + 2 * fit_steps(True, 200))
    assert fit_steps(True, 1) == 1


def test_far_frames_with_given_masks_are_seen_by_every_chunk() -> None:
    present = np.ones((2, 200), dtype=bool)
    missing = present.copy()
    missing[0, [90, 150]] = False
    chunks = plan_chunks(missing, present, 20)
    assert len(chunks) == 10
    for chunk in chunks:
        assert {90, 150} <= set(chunk.frames)
        core = chunk.frames[chunk.core]
        assert core == list(range(core[0], core[0] + 20))
    missing[0, ::3] = False
    seen = [set(chunk.frames) for chunk in plan_chunks(missing, present, 20)]
    assert max(map(len, seen)) <= 20 + 8 + 4
    source = _Numbers()
    for _ in read_chunks(plan_chunks(missing, present, 20), source):
        pass
    assert sorted(source.seen) == list(range(200))
