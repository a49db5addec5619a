"""Random choice of the frames of a training clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def sample_clip(
    length: int,
    num_frames: int,
    frame_range: int,
    rng: np.random.RandomState,
    *,
    shuffle: bool = False,
    object_frames: Sequence[int] | None = None,
) -> list[int]:
    """Draw the frame indices of one clip.

    A reference frame is drawn uniformly, the others without replacement from the frames at most
    ``frame_range`` away from it. If that window has too few frames, the nearest ones outside it are
    added. Frames are repeated only in a video shorter than the clip; the numbers of repetitions
    then differ by at most one.

    Args:
        length: Frames of the video, >= 1.
        num_frames: Frames of the clip (T), >= 1.
        frame_range: Frames of the window on each side of the reference frame, >= 0.
        rng: Source of randomness; a ``RandomState`` or anything with its ``randint``, ``choice``,
            ``permutation``.
        shuffle: Random order; otherwise the clip is sorted in time.
        object_frames: Frames that show an object. If there are any, the reference frame is one of
            them, so that a clip has no object only if the video has none.

    Returns:
        ``num_frames`` indices in [0, length).

    Raises:
        ValueError: An argument is out of range.
    """
    if length < 1 or num_frames < 1 or frame_range < 0:
        raise ValueError(
            f"Expected length >= 1, num_frames >= 1 and frame_range >= 0, got {length},"
            f" {num_frames} and {frame_range}."
        )
    if object_frames is not None and len(object_frames) > 0:
        reference = int(object_frames[int(rng.randint(len(object_frames)))])
    else:
        reference = int(rng.randint(length))
    if num_frames >= length:
        clip = _all_frames(length, num_frames, rng)
    else:
        clip = _window(length, num_frames, frame_range, reference, rng)
    clip.sort()
    if shuffle:
        clip = [clip[i] for i in rng.permutation(num_frames)]
    return clip


def _all_frames(length: int, num_frames: int, rng: np.random.RandomState) -> list[int]:
    """Every frame of a video that is shorter than the clip; some frames once more than others."""
    times, rest = divmod(num_frames, length)
    extra = rng.choice(length, size=rest, replace=False)
    return list(range(length)) * times + [int(i) for i in extra]


def _window(
    length: int, num_frames: int, frame_range: int, reference: int, rng: np.random.RandomState
) -> list[int]:
    """The reference frame and distinct others, inside the window as far as it has enough."""
    others = [i for i in range(length) if i != reference]
    near = [i for i in others if abs(i - reference) <= frame_range]
    wanted = num_frames - 1
    if len(near) < wanted:
        far = sorted(set(others) - set(near), key=lambda i: (abs(i - reference), i))
        return [reference, *near, *far[: wanted - len(near)]]
    return [reference, *(near[i] for i in rng.choice(len(near), size=wanted, replace=False))]
