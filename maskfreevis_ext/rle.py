"""Reading and writing of COCO run-length masks.

A COCO RLE lists the run lengths over the pixels of an image, column by column, starting with
background (the first run may be 0). The compressed form writes each number as signed LEB128 with 5
bits per character (48..111) and, from the fourth number on, as the difference to the number two
places before.

The C code of pycocotools trusts its input: malformed runs crash the process, corrupt the heap or
loop forever. So every mask from a file passes the checks of this module first.
Shape letters: T masks that are read together, K runs of all these masks.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from reprlib import repr as _short
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

#: Longest side of a mask, in pixels.
MAX_SIDE = 16384

# Differences of runs of a 16384 x 16384 mask need 29 bits and a sign: 6 groups of 5 bits.
_MAX_GROUPS = 6


def mask_fault(
    where: str, text: str, remedy: str = "Make RLEs with pycocotools.mask.encode."
) -> DataError:
    """The error of a malformed mask, for the caller to raise.

    Args:
        where: Start of the message: file, id and field.
        text: What is wrong.
        remedy: A sentence that says how to fix it.
    """
    return DataError(f"{where}: {text}. {remedy}")


def _as_integer(value: Any) -> int | None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        return None
    return int(value)


def _check_size(size: Any, expected: tuple[int, int] | None, where: str) -> tuple[int, int]:
    """(height, width) of an RLE; raises DataError."""
    remedy = "The size of a mask is [height, width] of its video."
    is_pair = isinstance(size, (list, tuple)) and len(size) == 2
    height, width = (_as_integer(side) or 0 for side in size) if is_pair else (0, 0)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        text = f"'size' must be two integers in 1..{MAX_SIDE}, got {_short(size)}"
        raise mask_fault(where, text, remedy)
    if expected is not None and (height, width) != tuple(expected):
        raise mask_fault(where, f"'size' must be {list(expected)}, got {[height, width]}", remedy)
    return height, width


class Runs(NamedTuple):
    """Run lengths of T masks of one size, one mask after the other.

    Attributes:
        lengths: Pixels of each run, int64 (K,), >= 0.
        is_object: Whether the run is foreground, bool (K,).
        sizes: Number of runs of each mask, int64 (T,).
    """

    lengths: np.ndarray
    is_object: np.ndarray
    sizes: np.ndarray

    def areas(self) -> np.ndarray:
        """Foreground pixels of each mask, int64 (T,)."""
        return _sum_by_mask(self.lengths * self.is_object, self.sizes)


class MalformedRunsError(ValueError):
    """Compressed counts that do not describe a mask of the given size.

    Attributes:
        index: Index of the malformed mask.
    """

    def __init__(self, index: int, text: str) -> None:
        super().__init__(text)
        self.index = index


def decode_counts(counts: Sequence[bytes], num_pixels: int) -> Runs:
    """Decode the compressed counts of several masks at once.

    Args:
        counts: Compressed counts of T >= 1 masks.
        num_pixels: Pixels of each mask, <= ``MAX_SIDE`` squared.

    Returns:
        The runs.

    Raises:
        MalformedRunsError: The counts of a mask do not describe a mask of that size.
    """
    lengths = np.array([len(data) for data in counts], dtype=np.int64)
    one = np.ones_like(lengths)
    _refuse(lengths == 0, one, "is empty")
    too_long = lengths > _MAX_GROUPS * (num_pixels + 1)
    _refuse(too_long, one, "is longer than any mask of this size needs")
    data = np.frombuffer(b"".join(counts), dtype=np.uint8) - np.uint8(48)  # wraps below 48
    mask_ends = np.cumsum(lengths)
    _refuse(data > 63, lengths, "holds bytes outside 48..111")
    _refuse(data[mask_ends - 1] & 0x20, one, "ends in the middle of a number")

    is_last = data < 0x20
    ends = np.flatnonzero(is_last)  # last character of each number
    num_chars = np.diff(ends, prepend=-1)
    sizes = np.add.reduceat(is_last, mask_ends - lengths, dtype=np.int64)
    _refuse(num_chars > _MAX_GROUPS, sizes, "holds a number of more than 29 bits")
    numbers = (data[ends] & 0x1F).astype(np.int64)
    numbers -= (numbers & 0x10) << 1  # the highest bit of the last character is the sign
    for place in range(1, int(num_chars.max())):
        is_long = np.flatnonzero(num_chars > place)
        numbers[is_long] = (numbers[is_long] << 5) | (data[ends[is_long] - place] & 0x1F)

    runs = _undo_differences(numbers, sizes)
    _refuse(runs.lengths < 0, sizes, "holds a negative run")
    # A longer run is invalid; with this bound the sums cannot overflow.
    totals = _sum_by_mask(np.minimum(runs.lengths, num_pixels + 1), sizes)
    _refuse(totals != num_pixels, one, f"must sum to height x width = {num_pixels}", totals)
    return runs


def _refuse(
    is_bad: np.ndarray, sizes: np.ndarray, text: str, got: np.ndarray | None = None
) -> None:
    """Raise MalformedRunsError if one of the ``sizes[t]`` entries of some mask t is bad."""
    if is_bad.any():
        index = int(np.searchsorted(np.cumsum(sizes), np.argmax(is_bad > 0), side="right"))
        raise MalformedRunsError(index, text if got is None else f"{text}, got {got[index]}")


def _undo_differences(numbers: np.ndarray, sizes: np.ndarray) -> Runs:
    """Runs from the differences that the compressed form holds, int64 (K,)."""
    firsts = np.cumsum(sizes) - sizes  # index of each mask's first number
    position = np.arange(len(numbers)) - np.repeat(firsts, sizes)
    is_object = position % 2 == 1
    # Two chains of sums per mask: positions 1, 3, 5, ... and 2, 4, 6, ...
    odd = np.cumsum(np.where(is_object, numbers, 0))
    even = np.cumsum(np.where(is_object | (position == 0), 0, numbers))
    lengths = np.where(
        is_object, odd - np.repeat(odd[firsts], sizes), even - np.repeat(even[firsts], sizes)
    )
    lengths[firsts] = numbers[firsts]
    return Runs(lengths, is_object, sizes)


def _sum_by_mask(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Sum of each mask's ``sizes[t]`` values, int64 (T,)."""
    sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    ends = np.cumsum(sizes)
    return sums[ends] - sums[ends - sizes]


def merge_runs(lengths: np.ndarray, is_object: np.ndarray) -> np.ndarray:
    """Remove empty runs and merge neighbouring runs of equal value.

    The runs of masks side by side are the runs of the masks one after the other, but they no longer
    alternate; this function restores that. pycocotools loops forever on a pair of empty runs.

    Args:
        lengths: Pixels of each run, int64 (K,), >= 0.
        is_object: Whether the run is foreground, bool (K,).

    Returns:
        Int64 (J,): background first (may be 0), then alternating, all positive.
    """
    is_kept = lengths > 0
    lengths, is_object = lengths[is_kept], is_object[is_kept]
    if not len(lengths):
        return np.zeros(1, np.int64)
    starts = np.flatnonzero(np.diff(is_object, prepend=~is_object[0]))
    joined = np.add.reduceat(lengths, starts)
    return np.concatenate([[0], joined]) if is_object[0] else joined


def encode_counts(runs: np.ndarray) -> bytes:
    """Compressed counts of the runs of one mask, int64 (J,) with values in 0..2**34."""
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


def _list_counts(counts: Sequence[Any], num_pixels: int, where: str) -> np.ndarray:
    """Runs (int64) of an uncompressed RLE, each an integer in [0, num_pixels]."""
    remedy = "Uncompressed counts are a list of integers >= 0."
    most = 2 * num_pixels + 2
    if not 1 <= len(counts) <= most:
        text = f"'counts' must hold 1..{most} runs for this size, got {len(counts)}"
        raise mask_fault(where, text, remedy)
    if set(map(type, counts)) != {int}:
        odd = [run for run in counts if _as_integer(run) is None]
        if odd:
            raise mask_fault(where, f"'counts' must hold integers, got {_short(odd[0])}", remedy)
    if min(counts) < 0 or max(counts) > num_pixels:
        raise mask_fault(where, f"'counts' must hold runs in 0..{num_pixels}", remedy)
    return np.asarray(counts, dtype=np.int64)


def check_rle(rle: Any, size: tuple[int, int] | None = None, where: str = "RLE") -> np.ndarray:
    """Runs of an RLE, after all checks that pycocotools omits.

    Args:
        rle: ``{"size": [height, width], "counts": ...}`` with compressed counts (str or bytes) or a
            list of runs.
        size: (height, width) that the mask must have; None accepts any up to ``MAX_SIDE``.
        where: Start of an error message: file, id and field.

    Returns:
        Runs, int64, >= 0, alternately background and foreground, with sum height * width.

    Raises:
        DataError: The RLE is malformed.
    """
    if not isinstance(rle, dict):
        raise mask_fault(where, f"an RLE must be an object, got {_short(rle)}")
    missing = [key for key in ("size", "counts") if key not in rle]
    if missing:
        raise mask_fault(where, f"an RLE must have 'size' and 'counts', {missing[0]!r} is absent")
    height, width = _check_size(rle["size"], size, where)
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        return _check_counts(counts, height * width, where)
    if not isinstance(counts, (list, tuple)):
        raise mask_fault(where, f"'counts' must be a string or a list, got {_short(counts)}")
    runs = _list_counts(counts, height * width, where)
    if runs.sum() != height * width:
        sums = f"height x width = {height * width}, got {runs.sum()}"
        raise mask_fault(where, f"'counts' must sum to {sums}")
    return runs


def _check_counts(counts: str | bytes, num_pixels: int, where: str) -> np.ndarray:
    """Runs of one mask's compressed counts; raises DataError."""
    if isinstance(counts, str):
        counts = counts.encode("utf-8", "surrogatepass")  # non-ASCII bytes are > 111 and so refused
    try:
        return decode_counts([counts], num_pixels).lengths
    except MalformedRunsError as error:
        raise mask_fault(where, f"'counts' {error}") from None


def clean_rle(
    rle: Any, size: tuple[int, int] | None = None, where: str = "RLE"
) -> tuple[dict[str, Any], int]:
    """Convert an RLE to an equal one that is safe for pycocotools; also returns its area.

    Args:
        rle: As in ``check_rle``.
        size: As in ``check_rle``.
        where: As in ``check_rle``.

    Returns:
        ``{"size": [height, width], "counts": bytes}`` and the number of foreground pixels.

    Raises:
        DataError: The RLE is malformed.
    """
    runs = check_rle(rle, size, where)
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    if not isinstance(counts, bytes) or (runs[1:] == 0).any():
        counts = encode_counts(merge_runs(runs, np.arange(runs.size) % 2 == 1))
    return {"size": [height, width], "counts": counts}, int(runs[1::2].sum())


def decode_rle(rle: Any, where: str = "RLE") -> np.ndarray:
    """Mask of an RLE.

    Args:
        rle: As in ``check_rle``.
        where: As in ``check_rle``.

    Returns:
        (H, W), bool.

    Raises:
        DataError: The RLE is malformed.
    """
    clean, _ = clean_rle(rle, where=where)
    return mask_util.decode(clean).astype(bool)


def encode_masks(masks: np.ndarray | Tensor) -> list[dict[str, Any]]:
    """Compressed RLEs of masks of one size, empty ones included.

    Args:
        masks: (T, H, W), bool, in CPU memory.

    Returns:
        T dicts ``{"size": [H, W], "counts": str}``, which can be written as JSON.
    """
    columns = np.ascontiguousarray(np.asarray(masks, dtype=bool).transpose(0, 2, 1))
    encoded = mask_util.encode(columns.view(np.uint8).transpose(2, 1, 0))  # (H, W, T), by columns
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")} for rle in encoded]


def merge_rles(rles: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Union of masks of one size.

    Args:
        rles: At least one RLE of ``clean_rle`` or ``segmentation_to_rle``.

    Returns:
        ``{"size": [height, width], "counts": bytes}``.
    """
    size = [int(side) for side in rles[0]["size"]]
    # In groups: pycocotools goes over the whole union again for each further mask.
    while len(rles) > 1:
        rles = [mask_util.merge(list(rles[i : i + 16])) for i in range(0, len(rles), 16)]
    return {"size": size, "counts": rles[0]["counts"]}


def is_finite_number(value: Any) -> bool:
    """Whether a JSON value is an int or a float, neither NaN nor infinite, and not a bool."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # an int may be beyond float64
