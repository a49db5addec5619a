"""The masks of one video, a few frames and objects at a time.

N objects, T frames, (H, W) frame, S x S cells of a window.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from torch import nn

from maskfreevis_ext.inference.boxes_to_masks.budget import BOX, GRABCUT, PIXEL_HEAD, Budget, Plan
from maskfreevis_ext.inference.boxes_to_masks.chunks import (
    Chunk,
    Source,
    fit_steps,
    read_chunks,
)
from maskfreevis_ext.inference.boxes_to_masks.given import GIVEN, GivenVideo
from maskfreevis_ext.inference.boxes_to_masks.pictures import Pictures
from maskfreevis_ext.inference.boxes_to_masks.sources import BrokenVideoError
from maskfreevis_ext.pseudo import PixelHeadSettings
from maskfreevis_ext.pseudo.clip import Clip, ObjectHead
from maskfreevis_ext.pseudo.confidence import (
    FLOW_SIDE,
    box_agreement,
    decidedness,
    join_confidence,
    temporal_consistency,
)
from maskfreevis_ext.pseudo.grabcut import GrabCutMasks, quick_grabcut
from maskfreevis_ext.pseudo.join import Predicted
from maskfreevis_ext.pseudo.windows import ObjectWindows, box_mask
from maskfreevis_ext.rle import decode_rle, encode_masks

logger = logging.getLogger(__name__)

#: Frames (H, W, 3) of a clip, boxes (N, T, 4) and windows -> what a trained model says.
Predictor = Callable[[Sequence[np.ndarray], np.ndarray, ObjectWindows], Predicted]


@dataclass
class TrackMasks:
    """Masks of an object, a value per frame; None where it has no box.

    Attributes:
        masks: Compressed RLE with text counts.
        areas: Pixels.
        confidences: In [0, 1].
        sources: "pixel_head", "grabcut", "box" or "given".
        pictures: For the review page.
    """

    masks: list[dict[str, Any] | None]
    areas: list[int | None]
    confidences: list[float | None]
    sources: list[str | None]
    pictures: Pictures = field(default_factory=Pictures)

    @classmethod
    def empty(cls, length: int) -> TrackMasks:
        """Nothing in any of the frames."""
        return cls(*([None] * length for _ in range(4)))  # type: ignore[arg-type]

    def put(self, frame: int, mask: np.ndarray, confidence: float, source: str) -> None:
        """Set the mask (H, W) bool of a frame."""
        self.masks[frame] = encode_masks(mask[None])[0]
        self.areas[frame] = int(mask.sum())
        self.confidences[frame] = round(confidence, 4)
        self.sources[frame] = source


@dataclass
class MaskMaker:
    """Makes masks within a budget.

    Attributes:
        backbone: Of the pixel head; None: it is not used.
        settings: Of the pixel head.
        budget: The time.
        predict: A trained model, or None.
        progress: Called with the number of boxes that are done, and how.
        with_pictures: Keep pictures for the review page.
    """

    backbone: nn.Module | None
    settings: PixelHeadSettings
    budget: Budget
    predict: Predictor | None = None
    progress: Callable[[int, Plan], object] = lambda count, plan: None
    with_pictures: bool = False

    def run(self, given: GivenVideo, chunks: Sequence[Chunk], source: Source) -> list[TrackMasks]:
        """Make the masks of a video.

        Args:
            given: The video.
            chunks: Of ``plan_chunks``.
            source: Its frames.

        Returns:
            One entry per object of the video; a mask for every box.
        """
        return _VideoMasks(self, given).run(chunks, source)


class _VideoMasks:
    """State of a video: its results, and what was fitted to its objects until now."""

    def __init__(self, maker: MaskMaker, given: GivenVideo) -> None:
        self.maker, self.given = maker, given
        self.missing = given.is_missing
        self.results = [TrackMasks.empty(given.boxes.shape[1]) for _ in given.tracks]
        self.heads: dict[int, ObjectHead] = {}
        self.fitted: set[int] = set()

    def run(self, chunks: Sequence[Chunk], source: Source) -> list[TrackMasks]:
        for (index, frame), rle in self.given.masks.items():
            result = self.results[index]
            counts = rle["counts"]
            text = counts.decode("ascii") if isinstance(counts, bytes) else counts
            result.masks[frame] = {"size": list(rle["size"]), "counts": text}
            result.areas[frame] = int(decode_rle(rle).sum())
            result.confidences[frame], result.sources[frame] = 1.0, GIVEN
        stream: Iterator[list[np.ndarray]] = read_chunks(chunks, source)
        is_readable = True
        for chunk in chunks:
            frames = None
            start = time.monotonic()
            if is_readable and not self.maker.budget.is_over:
                try:
                    frames = next(stream)
                except BrokenVideoError as error:
                    logger.warning("%s The rest of the video gets its boxes as masks.", error)
                    is_readable = False
            if frames is None:
                self._fill(chunk)
            else:
                _ChunkMasks(self, chunk, frames).run(time.monotonic() - start)
        return self.results

    def _fill(self, chunk: Chunk) -> None:
        """Boxes as masks."""
        plan, count = Plan(BOX), 0
        for index in chunk.objects:
            for frame in chunk.frames[chunk.core]:
                if self.missing[index, frame]:
                    box = self.given.boxes[index, frame]
                    self.results[index].put(frame, box_mask(box, self.given.size), 0.0, BOX)
                    count += 1
        self.maker.budget.record(plan, count, self.steps_of(chunk.objects), 0.0)
        self.fitted |= set(chunk.objects)
        self.maker.progress(count, plan)

    def steps_of(self, objects: Sequence[int]) -> int:
        steps = self.maker.settings.steps
        return sum(fit_steps(index in self.fitted, steps) for index in objects)


class _ChunkMasks:
    """Masks of the objects of a chunk, group by group.

    Local indices: ``rows`` are the objects with a box in the chunk, of which some need masks;
    ``t`` counts the frames of the chunk.
    """

    def __init__(self, video: _VideoMasks, chunk: Chunk, frames: list[np.ndarray]) -> None:
        self.video, self.chunk, self.frames = video, chunk, frames
        given = video.given
        present = given.is_present[:, chunk.frames].any(1)
        self.rows = np.flatnonzero(present).tolist()
        places = {t: place for place, t in enumerate(chunk.frames)}
        row_of = {index: row for row, index in enumerate(self.rows)}
        self.known = {
            (row_of[index], places[frame]): decode_rle(rle)
            for (index, frame), rle in given.masks.items()
            if index in row_of and frame in places
        }
        self.clip = Clip(
            frames, given.boxes[self.rows][:, chunk.frames], video.maker.settings, self.known
        )
        self.predicted: Predicted | None = None

    @cached_property
    def grey(self) -> list[np.ndarray]:
        """The frames in grey, (H, W) uint8."""
        return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in self.frames]

    def run(self, seconds: float) -> None:
        """Make the masks.

        Args:
            seconds: Time that reading took.
        """
        maker = self.video.maker
        needed = [self.rows.index(index) for index in self.chunk.objects]
        started = {row for row in needed if self.rows[row] in self.video.heads}
        start = time.monotonic() - seconds
        for rows in self.clip.groups(needed, started):
            plan = maker.budget.plan()
            steps = self.video.steps_of([self.rows[row] for row in rows])
            count = self._group(rows, plan)
            now = time.monotonic()
            maker.budget.record(plan, count, steps, now - start)
            maker.progress(count, plan)
            start = now
            self.video.fitted |= {self.rows[row] for row in rows}

    def _group(self, rows: list[int], plan: Plan) -> int:
        make = self._masks_of(rows, plan)
        count = 0
        for number, row in enumerate(rows):
            count += self._object(row, lambda t, number=number: make(number, t), plan)  # type: ignore[misc]
        return count

    def _masks_of(
        self, rows: list[int], plan: Plan
    ) -> Callable[[int, int], tuple[np.ndarray, float | None]]:
        """A function from object of the group and frame to mask and how decided it is."""
        boxes = self.clip.windows.boxes[rows]
        if plan.method == GRABCUT and not plan.is_quick:
            plain = GrabCutMasks(self.frames, boxes)
            return lambda number, t: (plain.mask(number, t), None)
        if plan.method == GRABCUT:
            return lambda number, t: (quick_grabcut(self.frames[t], boxes[number, t]), None)
        if plan.method == BOX:
            return lambda number, t: (box_mask(boxes[number, t], self.video.given.size), None)
        maker = self.video.maker
        assert maker.backbone is not None  # is made with this method
        if maker.predict is not None and self.predicted is None:
            self.predicted = maker.predict(self.frames, self.clip.windows.boxes, self.clip.windows)
        indices = [self.rows[row] for row in rows]
        heads = [self.video.heads[index] for index in indices if index in self.video.heads]
        steps = max(round(plan.share * fit_steps(bool(heads), maker.settings.steps)), 1)
        before = ObjectHead.join(heads) if heads else None
        raw, refined, head = self.clip.fit(rows, maker.backbone, before, steps, self.predicted)
        self.video.heads.update(zip(indices, head.split(), strict=True))
        masks = self.clip.masks(rows, raw, refined)
        rows_cols = masks.windows.profiles().numpy()
        inside = rows_cols[:, :, 0, :, None] * rows_cols[:, :, 1, None, :]

        def make(number: int, t: int) -> tuple[np.ndarray, float]:
            cells = inside[number, t] > 0.5
            probability = raw[number, t].numpy()[cells]
            decided = decidedness(probability, probability > 0.5)
            if maker.budget.is_over:  # what was fitted is used, without what takes long
                smooth = refined[number, t].numpy()
                return masks.windows.to_frame(smooth, number, t) > 0.5, decided
            return masks.mask(number, t), decided

        return make

    def _object(
        self, row: int, make: Callable[[int], tuple[np.ndarray, float | None]], plan: Plan
    ) -> int:
        """Masks of an object in the core of the chunk; returns their number."""
        core = self.chunk.core
        made: dict[int, tuple[np.ndarray, float | None, str]] = {}
        windows = self.clip.windows
        low, high = max(core.start - 1, 0), min(core.stop + 1, len(self.frames))
        pictures: list[np.ndarray | None] = [None] * (high - low)
        small: list[np.ndarray | None] = [None] * (high - low)
        for t in range(low, high):
            if not windows.is_present[row, t]:
                continue
            made[t] = self._frame(row, t, make, plan)
            if plan.method == BOX:
                continue
            pictures[t - low] = windows.crop(self.grey[t], row, t, FLOW_SIDE)
            mask = windows.crop(255 * made[t][0].astype(np.uint8), row, t, FLOW_SIDE)
            small[t - low] = mask > 127
        consistency = temporal_consistency(pictures, small)
        index, count = self.rows[row], 0
        for t in range(core.start, core.stop):
            frame = self.chunk.frames[t]
            if t not in made or not self.video.missing[index, frame]:
                continue
            mask, decided, source = made[t]
            box = windows.boxes[row, t]
            signs = [decided, box_agreement(mask, box), consistency[t - low]]
            confidence = 0.0 if source == BOX else join_confidence(signs)
            self.video.results[index].put(frame, mask, confidence, source)
            count += 1
        if self.video.maker.with_pictures:
            self._keep_pictures(row, made)
        return count

    def _frame(
        self, row: int, t: int, make: Callable[[int], tuple[np.ndarray, float | None]], plan: Plan
    ) -> tuple[np.ndarray, float | None, str]:
        """Mask, how decided it is, and what made it."""
        if (row, t) in self.known:
            return self.known[row, t], 1.0, GIVEN
        box = self.clip.windows.boxes[row, t]
        is_over = self.video.maker.budget.is_over
        if plan.method == PIXEL_HEAD or (plan.method == GRABCUT and not is_over):
            mask, decided = make(t)
            if mask.any():
                return mask, decided, plan.method
            if plan.method == PIXEL_HEAD and not is_over:
                mask = quick_grabcut(self.frames[t], box)
                if mask.any():
                    return mask, None, GRABCUT
        return box_mask(box, self.video.given.size), None, BOX

    def _keep_pictures(
        self, row: int, made: dict[int, tuple[np.ndarray, float | None, str]]
    ) -> None:
        index = self.rows[row]
        result = self.video.results[index]
        wanted = result.pictures.wanted(self.video.given.is_present[index])
        for t, (mask, _, _) in made.items():
            frame = self.chunk.frames[t]
            confidence = result.confidences[frame]
            if confidence is not None and self.chunk.core.start <= t < self.chunk.core.stop:
                is_wanted = frame in wanted
                box = self.clip.windows.boxes[row, t]
                result.pictures.offer(frame, confidence, is_wanted, self.frames[t], box, mask)
