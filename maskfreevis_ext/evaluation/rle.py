"""COCO run-length masks of whole tracks, handled as arrays of run lengths; no bitmap is made.

A COCO mask is a list of run lengths over the image's pixels in column-major order, beginning with
background (that first run may be 0). Its compressed form writes each number as signed LEB128 with 5
bits per character (48..111) and, from the fourth on, as the difference to the number two places
before. Column-major order makes a track simple: the runs of its frames one after the other are the
runs of the image H x (T*W) that has the frames side by side.

pycocotools' C code trusts its input and dies on malformed runs, so ``decode_track`` accepts only
what ``maskfreevis_ext.data.rle`` accepts.
Shape letters: K numbers of a track's frames together, J runs of the joined track.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskfreevis_ext.data.rle import check_rle, segmentation_to_rle

_MAX_CHARS = 6  # characters of one number, as in data.rle


@dataclass(frozen=True)
class Track:
    """One object over the T frames of a video.

    Attributes:
        runs: Run lengths of the frames side by side, int64 [J]: background first (may be 0), all
            others positive.
        areas: Pixels of the object in each frame, int64 [T].
    """

    runs: np.ndarray
    areas: np.ndarray

    @property
    def mean_area(self) -> float:
        """Mean area in pixels over the frames where the object has any; 0 where it has none."""
        visible = self.areas[self.areas > 0]
        return float(visible.mean()) if len(visible) else 0.0


def decode_track(segmentations: Sequence[object], height: int, width: int, where: str) -> Track:
    """Read the masks of a track and join them, checking each.

    Args:
        segmentations: One entry per frame, at least one: None (empty mask), an RLE dict ``{"size":
            [h, w], "counts": ...}`` with compressed (str, bytes) or plain (list of int) counts, or
            a list of polygons.
        height: Height of every frame in pixels.
        width: Width of every frame in pixels.
        where: What the masks belong to, for messages: "results.json: results[3]".

    Returns:
        The track.

    Raises:
        DataError: An entry is no mask of that size; names the frame and the fault.
    """
    places = [f"{where}: segmentations[{frame}]" for frame in range(len(segmentations))]
    blobs = [
        _compressed_counts(entry, height, width, place)
        for entry, place in zip(segmentations, places, strict=True)
    ]
    try:
        runs, is_object, frames = _decode_all(blobs, height * width)
    except _MalformedError:
        # One by one, which is slow and names the frame and the fault.
        size = [height, width]
        checked = [
            check_rle({"size": size, "counts": blob}, (height, width), place)
            for blob, place in zip(blobs, places, strict=True)
        ]
        runs = np.concatenate(checked)
        is_object = np.concatenate([np.arange(len(frame)) % 2 == 1 for frame in checked])
        frames = np.repeat(np.arange(len(checked)), [len(frame) for frame in checked])
    areas = _sum_by_frame(runs * is_object, frames, len(blobs))
    return Track(_join_runs(runs, is_object), areas)


def encode_track(track: Track, num_frames: int, height: int, width: int) -> dict[str, object]:
    """Give the compressed RLE of a track's frames laid side by side.

    Args:
        track: The track.
        num_frames: T.
        height: H in pixels.
        width: W in pixels.

    Returns:
        ``{"size": [H, T * W], "counts": bytes}``, as pycocotools takes it.
    """
    return {"size": [height, num_frames * width], "counts": _encode_runs(track.runs)}


def track_iou(detections: Sequence[Track], objects: Sequence[Track]) -> np.ndarray:
    """IoU of tracks, counted on run lengths in 64 bits: for videos too long for pycocotools.

    Args:
        detections: D tracks.
        objects: G tracks of the same video.

    Returns:
        IoU, float64 [D, G]; 0 where both are empty.
    """
    ious = np.zeros((len(detections), len(objects)))
    for column, one in enumerate(objects):
        edges = np.concatenate([[0], np.cumsum(one.runs)])
        covered = np.concatenate([[0], np.cumsum(one.runs * (np.arange(len(one.runs)) % 2))])
        for row, other in enumerate(detections):
            # How many of the object's pixels lie before each end of a run of the detection.
            ends = np.cumsum(other.runs)
            ends = ends[: len(ends) // 2 * 2]
            place = np.searchsorted(edges, ends, side="right") - 1
            place = np.minimum(place, len(one.runs) - 1)
            before = covered[place] + (place % 2) * (ends - edges[place])
            intersection = int((before[1::2] - before[0::2]).sum())
            union = int(one.areas.sum()) + int(other.areas.sum()) - intersection
            ious[row, column] = intersection / union if union else 0.0
    return ious


def _compressed_counts(entry: object, height: int, width: int, where: str) -> bytes:
    """The compressed counts of one frame's mask. Those that came compressed are not checked yet."""
    if isinstance(entry, Mapping) and entry.get("size") == [height, width]:
        counts = entry.get("counts")
        if isinstance(counts, bytes):
            return counts
        if isinstance(counts, str) and counts.isascii():
            return counts.encode("ascii")
    rle, _, _ = segmentation_to_rle(entry, height, width, where)
    return _encode_runs(np.array([height * width])) if rle is None else rle["counts"]


class _MalformedError(ValueError):
    """Some frame's counts are no mask."""


def _decode_all(blobs: list[bytes], num_pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of all frames' compressed counts at once, frame after frame.

    Args:
        blobs: Compressed counts of each frame, T >= 1.
        num_pixels: Pixels of a frame.

    Returns:
        Run lengths int64 [K], which of them are object bool [K], and the frame of each int64 [K].

    Raises:
        _MalformedError: Not all are masks of that size. The rules are those of
            ``data.rle.check_rle``.
    """
    lengths = np.array([len(blob) for blob in blobs], dtype=np.int64)
    if not lengths.all():
        raise _MalformedError
    data = np.frombuffer(b"".join(blobs), dtype=np.uint8) - np.uint8(
        48
    )  # below 48 wraps round to > 63
    frame_ends = np.cumsum(lengths)
    if data.max() > 63 or (data[frame_ends - 1] & 0x20).any():
        raise _MalformedError

    is_last = data < 0x20
    ends = np.flatnonzero(is_last)  # last character of each number
    num_chars = np.diff(ends, prepend=-1)
    longest = int(num_chars.max())
    if longest > _MAX_CHARS:
        raise _MalformedError
    numbers = (data[ends] & 0x1F).astype(np.int64)
    numbers -= (numbers & 0x10) << 1  # the highest bit of the last character is the sign
    for place in range(1, longest):
        is_long = np.flatnonzero(num_chars > place)
        numbers[is_long] = (numbers[is_long] << 5) | (data[ends[is_long] - place] & 0x1F)

    sizes = np.add.reduceat(is_last, frame_ends - lengths, dtype=np.int64)
    frames = np.repeat(np.arange(len(blobs)), sizes)
    runs, is_object = _undo_differences(numbers, sizes)
    if runs.min() < 0 or (_sum_by_frame(runs, frames, len(blobs)) != num_pixels).any():
        raise _MalformedError
    return runs, is_object, frames


def _undo_differences(numbers: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths from differences, and which of them are object: [K] each.

    Args:
        numbers: Numbers of the compressed counts, frame after frame, int64 [K].
        sizes: How many of them each frame has, int64 [T].
    """
    firsts = np.cumsum(sizes) - sizes  # index of each frame's first number
    position = np.arange(len(numbers)) - np.repeat(firsts, sizes)
    is_object = position % 2 == 1
    # Two chains of sums per frame: positions 1, 3, 5, ... and 2, 4, 6, ...
    odd = np.cumsum(np.where(is_object, numbers, 0))
    even = np.cumsum(np.where(is_object | (position == 0), 0, numbers))
    runs = np.where(
        is_object, odd - np.repeat(odd[firsts], sizes), even - np.repeat(even[firsts], sizes)
    )
    runs[firsts] = numbers[firsts]
    return runs, is_object


def _join_runs(runs: np.ndarray, is_object: np.ndarray) -> np.ndarray:
    """Merge neighbours of equal value, without empty runs (pycocotools stops at a pair of them)."""
    is_kept = runs > 0
    runs, is_object = runs[is_kept], is_object[is_kept]
    if not len(runs):
        return np.zeros(1, np.int64)
    starts = np.flatnonzero(np.diff(is_object, prepend=~is_object[0]))
    joined = np.add.reduceat(runs, starts)
    return np.concatenate([[0], joined]) if is_object[0] else joined


def _sum_by_frame(values: np.ndarray, frames: np.ndarray, num_frames: int) -> np.ndarray:
    sums = np.concatenate([[0], np.cumsum(values)])
    bounds = np.searchsorted(frames, np.arange(num_frames + 1), side="left")
    return sums[bounds[1:]] - sums[bounds[:-1]]


def _encode_runs(runs: np.ndarray) -> bytes:
    """Compressed counts of run lengths, int64 [J] with values below 2**34."""
    numbers = runs.astype(np.int64)
    numbers[3:] = runs[3:] - runs[1:-2]
    num_chars = np.ones(len(numbers), dtype=np.int64)
    for chars in range(1, 8):  # up to 35 bits
        half = 1 << (5 * chars - 1)
        is_longer = (numbers >= half) | (numbers < -half)
        if not is_longer.any():
            break
        num_chars += is_longer
    starts = np.cumsum(num_chars) - num_chars
    text = np.empty(int(num_chars.sum()), dtype=np.uint8)
    for place in range(int(num_chars.max(initial=0))):
        is_long = num_chars > place
        more = np.where(num_chars[is_long] > place + 1, 0x20, 0)
        text[starts[is_long] + place] = ((numbers[is_long] >> (5 * place)) & 0x1F) + more + 48
    return text.tobytes()
