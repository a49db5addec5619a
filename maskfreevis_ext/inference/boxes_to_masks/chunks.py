"""Long videos a few frames at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_MOST_FRAMES = 40  # of a chunk, ...
_FEWEST_FRAMES = 8
_MOST_BYTES = 300 << 20  # ... whose pictures and windows are to take no more than this
_WINDOW_BYTES = 150 << 10  # of one object in one frame
_MOST_OVERLAP = 4  # frames before and after it, which its masks are made to agree with
_MOST_ANCHORS = 12  # frames with given masks that are kept for a whole video, ...
_ANCHORS = 4  # of which each chunk sees the nearest
#: Later chunks of an object go on from the fit to the one before.
LATER_STEPS = 0.25


class Source(Protocol):
    """Where frames come from."""

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8, RGB, by rising index."""


@dataclass(frozen=True)
class Chunk:
    """Frames of a video that are in memory together.

    Attributes:
        frames: Their numbers in the video, rising; frames far from the core have given masks.
        core: Those of them whose masks are kept, as a slice of ``frames``.
        objects: Objects that need masks in the core.
        far: Those of the frames that are far from the core.
    """

    frames: list[int]
    core: slice
    objects: list[int]
    far: list[int]


def chunk_length(num_objects: float, size: tuple[int, int]) -> int:
    """Frames of a chunk, so that memory depends on neither objects nor pixels.

    Args:
        num_objects: Mean number of objects in a frame.
        size: (H, W) of the frames.
    """
    of_frame = 3 * size[0] * size[1] + _WINDOW_BYTES * num_objects
    return int(np.clip(_MOST_BYTES // of_frame, _FEWEST_FRAMES, _MOST_FRAMES))


def plan_chunks(is_missing: np.ndarray, is_present: np.ndarray, length: int) -> list[Chunk]:
    """Cut the frames that show objects with missing masks into chunks.

    Frames in which all objects have masks, or there are none, are in no chunk; those that help, as
    their masks are given, are.

    Args:
        is_missing: (N, T) bool, where an object needs a mask.
        is_present: (N, T) bool, where it has a box.
        length: Frames of a core.
    """
    needs = is_missing.any(1)
    if not needs.any():
        return []
    frames = np.flatnonzero(is_present[needs].any(0)).tolist()
    anchors = _anchors(is_missing[needs], is_present[needs])
    overlap = int(np.clip(length // 8, 1, _MOST_OVERLAP))
    chunks = []
    count = -(-len(frames) // length)  # of about equal length
    edges = np.linspace(0, len(frames), count + 1).round().astype(int).tolist()
    for start, end in itertools.pairwise(edges):
        objects = np.flatnonzero(is_missing[:, frames[start:end]].any(1)).tolist()
        if objects:
            low, high = max(start - overlap, 0), min(end + overlap, len(frames))
            near = frames[low:high]
            middle = (near[0] + near[-1]) / 2
            far = [frame for frame in anchors if not near[0] <= frame <= near[-1]]
            far = sorted(far, key=lambda frame: abs(frame - middle))[:_ANCHORS]
            low -= sum(frame < near[0] for frame in far)
            core = slice(start - low, end - low)
            chunks.append(Chunk(sorted([*near, *far]), core, objects, far))
    return chunks


def _anchors(is_missing: np.ndarray, is_present: np.ndarray) -> list[int]:
    """Some frames with given masks of objects that need others, spread over the video."""
    frames = np.flatnonzero((is_present & ~is_missing).any(0))
    places = np.linspace(0, len(frames) - 1, min(_MOST_ANCHORS, len(frames))).round().astype(int)
    return [int(frames[place]) for place in places]


def read_chunks(chunks: Sequence[Chunk], source: Source) -> Iterator[list[np.ndarray]]:
    """The frames of one chunk after the other; each frame is read once, far ones first.

    Args:
        chunks: Of ``plan_chunks``.
        source: Of the frames.

    Yields:
        The frames of a chunk.
    """
    far = sorted({frame for chunk in chunks for frame in chunk.far})
    pinned = dict(zip(far, source.read(far), strict=True)) if far else {}
    wanted = sorted({frame for chunk in chunks for frame in chunk.frames} - pinned.keys())
    stream = source.read(wanted)
    kept: dict[int, np.ndarray] = {}
    place = 0
    for chunk in chunks:
        own = [frame for frame in chunk.frames if frame not in pinned]
        kept = {frame: picture for frame, picture in kept.items() if own and frame >= own[0]}
        while place < len(wanted) and own and wanted[place] <= own[-1]:
            kept[wanted[place]] = next(stream)
            place += 1
        yield [pinned[frame] if frame in pinned else kept[frame] for frame in chunk.frames]


def count_work(chunks: Sequence[Chunk], is_missing: np.ndarray, steps: int) -> tuple[int, int]:
    """Boxes that need a mask, and steps of all fits times their objects.

    Args:
        chunks: Of ``plan_chunks``.
        is_missing: (N, T) bool.
        steps: Steps of the first fit of an object.
    """
    seen: set[int] = set()
    total = 0
    for chunk in chunks:
        total += sum(fit_steps(index in seen, steps) for index in chunk.objects)
        seen |= set(chunk.objects)
    return int(is_missing.sum()), total


def fit_steps(is_later: bool, steps: int) -> int:
    """Steps of the first or of a later fit of an object, at least one."""
    return max(round(steps * LATER_STEPS), 1) if is_later else steps
