"""Masks of a video: for every box, in chunks, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from maskfreevis_ext.inference.boxes_to_masks.budget import BOX, GRABCUT, PIXEL_HEAD, Budget
from maskfreevis_ext.inference.boxes_to_masks.chunks import count_work, plan_chunks
from maskfreevis_ext.inference.boxes_to_masks.given import GivenVideo
from maskfreevis_ext.inference.boxes_to_masks.masking import MaskMaker, TrackMasks
from maskfreevis_ext.inference.boxes_to_masks.sources import BrokenVideoError
from maskfreevis_ext.pseudo.windows import box_mask
from maskfreevis_ext.rle import decode_rle, encode_masks
from tests.pseudo.clips import SIZE, Colours, carried_clip
from tests.pseudo.test_pixel_head import FAST

RADIUS = 9


def _clip(length: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """A red and a blue disc on green ground; the blue one comes in frame 2. Boxes, masks."""
    random = np.random.RandomState(0)
    ground = random.randint(0, 40, (*SIZE, 3)) + np.array([30, 110, 30])
    rows, cols = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    frames, boxes, masks = [], np.zeros((2, length, 4)), np.zeros((2, length, *SIZE), dtype=bool)
    for t in range(length):
        frame = ground.astype(np.uint8)
        for index, (y, x) in enumerate(((18, 20 + 2 * t), (46, 70 - 2 * t))):
            if index == 1 and t < 2:
                continue
            masks[index, t] = (rows - y) ** 2 + (cols - x) ** 2 <= RADIUS**2
            frame[masks[index, t]] = ((220, 40, 40), (40, 60, 230))[index]
            boxes[index, t] = x - RADIUS, y - RADIUS, x + RADIUS + 1, y + RADIUS + 1
        frames.append(frame)
    return frames, boxes, masks


class _Frames:
    """Frames from memory; fails from a frame on."""

    def __init__(self, frames: list[np.ndarray], end: int = 10**9) -> None:
        self.frames, self.end = frames, end

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            if index >= self.end:
                raise BrokenVideoError("film.mp4: ends before frame 5.")
            yield self.frames[index]


def _run(
    length: int, method: str, known: Any = (), end: int = 10**9, **changes: Any
) -> tuple[list[TrackMasks], np.ndarray, MaskMaker]:
    frames, boxes, truth = _clip(length)
    video = {"height": SIZE[0], "width": SIZE[1], "video_id": 1, "length": length}
    masks = {place: encode_masks(truth[place][None])[0] for place in known}
    given = GivenVideo(video, [5, 6], boxes, masks)
    chunks = plan_chunks(given.is_missing, given.is_present, 4)
    work = count_work(chunks, given.is_missing, FAST.steps)
    maker = MaskMaker(
        Colours(), FAST, Budget(changes.pop("minutes", None), method, *work), **changes
    )
    return maker.run(given, chunks, _Frames(frames, end)), truth, maker


def _iou(result: TrackMasks, truth: np.ndarray) -> float:
    found = np.stack([np.zeros(SIZE, bool) if m is None else decode_rle(m) for m in result.masks])
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize("method", [PIXEL_HEAD, GRABCUT])
def test_long_video_in_chunks(method: str) -> None:
    seen: list[int] = []
    results, truth, maker = _run(9, method, progress=lambda count, plan: seen.append(count))
    for result, true in zip(results, truth, strict=True):
        assert _iou(result, true) > 0.85
        present = true.any((1, 2))
        for values in (result.masks, result.areas, result.confidences, result.sources):
            assert [value is not None for value in values] == present.tolist()
        assert {source for source in result.sources if source} == {method}
        assert min(value for value in result.confidences if value is not None) > 0.5
    assert sum(seen) == 16
    assert (maker.budget.boxes, maker.budget.steps) == (0, 0)


def test_given_masks_stay_and_chunks_without_missing_ones_are_not_read() -> None:
    known = [(0, t) for t in range(9)] + [(1, t) for t in range(2, 8)]
    results, truth, _ = _run(9, GRABCUT, known, end=0)
    assert results[0].sources == ["given"] * 9
    assert results[1].sources == [None] * 2 + ["given"] * 6 + [BOX]
    assert _iou(results[0], truth[0]) == 1
    assert results[0].confidences == [1.0] * 9
    assert isinstance(results[0].masks[0]["counts"], str)


def test_without_time_the_boxes_are_the_masks() -> None:
    results, _, _ = _run(9, PIXEL_HEAD, minutes=1e-9)
    assert results[0].sources == [BOX] * 9
    assert results[0].confidences == [0.0] * 9
    assert results[0].areas == [(2 * RADIUS + 1) ** 2] * 9


def test_fit_that_took_too_long_is_used_all_the_same() -> None:
    frames, boxes, truth = _clip(4)
    video = {"height": SIZE[0], "width": SIZE[1], "video_id": 1, "length": 4}
    given = GivenVideo(video, [5], boxes[:1], {})
    chunks = plan_chunks(given.is_missing, given.is_present, 4)
    now = iter([0.0] * 6)  # then the time is up
    budget = Budget(60, PIXEL_HEAD, 4, FAST.steps, lambda: next(now, 1e6))
    (result,) = MaskMaker(Colours(), FAST, budget).run(given, chunks, _Frames(frames))
    assert budget.is_over
    assert result.sources == [PIXEL_HEAD] * 4
    assert _iou(result, truth[0]) > 0.85


def test_broken_end_of_a_video_gets_boxes(caplog) -> None:
    results, _, _ = _run(12, GRABCUT, end=10)
    assert results[0].sources[:4] == [GRABCUT] * 4
    assert results[0].sources[-4:] == [BOX] * 4
    assert "ends before frame 5" in caplog.text


def test_empty_mask_is_replaced() -> None:
    """An object of the ground's own colour, of which GrabCut leaves nothing, has its box."""
    frames, boxes, _ = _clip(1)
    frames[0][:] = 90
    video = {"height": SIZE[0], "width": SIZE[1], "video_id": 1, "length": 1}
    given = GivenVideo(video, [5], boxes[:1], {})
    chunks = plan_chunks(given.is_missing, given.is_present, 4)
    maker = MaskMaker(None, FAST, Budget(None, GRABCUT, 1, 0))
    (result,) = maker.run(given, chunks, _Frames(frames))
    assert decode_rle(result.masks[0]).any()
    assert result.confidences[0] < 0.5 or result.sources[0] == GRABCUT


def test_pictures_are_few_and_have_the_least_certain_frames() -> None:
    results, _, _ = _run(9, GRABCUT, with_pictures=True)
    pictures = results[0].pictures.in_order()
    assert 5 <= len(pictures) <= 8
    assert [one.frame for one in pictures] == sorted({one.frame for one in pictures})
    least = min(value for value in results[0].confidences if value is not None)
    assert min(one.confidence for one in pictures) == pytest.approx(least)
    assert all(one.data[:2] == b"\xff\xd8" and len(one.data) < 40_000 for one in pictures)


def test_box_mask_has_a_pixel_at_least() -> None:
    assert box_mask(np.array([3.1, 2.2, 3.2, 2.3]), SIZE).sum() == 1


def test_corrected_frame_helps_far_chunks() -> None:
    """An L that carries a block which its boxes do not tell from it, 12 frames in 3 chunks."""
    frames, boxes, masks = carried_clip(12)
    video = {"height": SIZE[0], "width": SIZE[1], "video_id": 1, "length": 12}
    ious = []
    for known in ({}, {(0, 10): encode_masks(masks[0, 10][None])[0]}):
        given = GivenVideo(video, [5], boxes, known)
        chunks = plan_chunks(given.is_missing, given.is_present, 4)
        assert len(chunks) == 3
        budget = Budget(None, PIXEL_HEAD, *count_work(chunks, given.is_missing, FAST.steps))
        (result,) = MaskMaker(Colours(), FAST, budget).run(given, chunks, _Frames(frames))
        result.masks[4:] = [None] * 8
        ious.append(_iou(result, np.where(np.arange(12)[:, None, None] < 4, masks[0], False)))
    assert ious[0] < 0.7
    assert ious[1] > 0.85
