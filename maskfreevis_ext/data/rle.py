"""COCO run-length masks and polygons, checked before pycocotools sees them.

The C code behind pycocotools trusts its input: malformed runs end the process, damage the heap or
never return. Every mask that comes from a file passes here first. Runs count pixels column by
column and start with background.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.errors import DataError

#: Longest side of a mask, in pixels.
MAX_SIDE = 16384
#: Most numbers in one polygon.
MAX_POLYGON_NUMBERS = 200_000

# Differences of runs of a 16384 x 16384 mask need 29 bits and a sign: 6 groups of 5 bits.
_MAX_GROUPS = 6


def _fail(where: str, text: str, remedy: str) -> DataError:
    return DataError(f"{where}: {text}. {remedy}")


def _as_integer(value: Any) -> int | None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        return None
    return int(value)


def _check_size(size: Any, expected: tuple[int, int] | None, where: str) -> tuple[int, int]:
    """(height, width) of an RLE; raises DataError."""
    remedy = "The size of a mask is [height, width] of its video."
    is_pair = isinstance(size, (list, tuple)) and len(size) == 2
    sides = [_as_integer(side) for side in size] if is_pair else [None]
    if any(side is None or not 1 <= side <= MAX_SIDE for side in sides):
        raise _fail(
            where, f"'size' must be two integers in 1..{MAX_SIDE}, got {_short(size)}", remedy
        )
    height, width = int(sides[0]), int(sides[1])  # type: ignore[arg-type]
    if expected is not None and (height, width) != tuple(expected):
        raise _fail(where, f"'size' must be {list(expected)}, got {[height, width]}", remedy)
    return height, width


def _short(value: Any) -> str:
    return reprlib.repr(value)


def _decode_counts(counts: str | bytes, num_pixels: int, where: str) -> np.ndarray:
    """Runs (int64) of a compressed RLE of complete numbers; their signs are not checked here."""
    remedy = "Make RLEs with pycocotools.mask.encode."
    if isinstance(counts, str):
        try:
            counts = counts.encode("ascii")
        except UnicodeEncodeError:
            raise _fail(where, "'counts' holds characters that no RLE has", remedy) from None
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64)
    if codes.size == 0:
        raise _fail(where, "'counts' is empty", remedy)
    if codes.size > _MAX_GROUPS * (num_pixels + 1):
        raise _fail(where, "'counts' is longer than any mask of this size needs", remedy)
    if codes.min() < 48 or codes.max() > 111:
        raise _fail(where, "'counts' holds bytes outside 48..111", remedy)
    codes -= 48
    is_last = (codes & 0x20) == 0
    if not is_last[-1]:
        raise _fail(where, "'counts' ends in the middle of a number", remedy)
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_GROUPS:
        raise _fail(where, "'counts' holds a number of more than 29 bits", remedy)
    places = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 0x1F) << (5 * places), starts)
    values -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    # From the fourth run on, a number is the difference to the run before last.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _list_counts(counts: Sequence[Any], num_pixels: int, where: str) -> np.ndarray:
    """Runs (int64) of an uncompressed RLE, each an integer in [0, num_pixels]."""
    remedy = "Uncompressed counts are a list of integers >= 0."
    if len(counts) == 0 or len(counts) > 2 * num_pixels + 2:
        raise _fail(
            where,
            f"'counts' must hold 1..{2 * num_pixels + 2} runs for this size, got {len(counts)}",
            remedy,
        )
    if set(map(type, counts)) != {int}:
        odd = next(run for run in counts if type(run) is not int)
        if _as_integer(odd) is None:
            raise _fail(where, f"'counts' must hold integers, got {_short(odd)}", remedy)
        counts = [_as_integer(run) if _as_integer(run) is not None else -1 for run in counts]
    if min(counts) < 0 or max(counts) > num_pixels:
        raise _fail(where, f"'counts' must hold runs in 0..{num_pixels}", remedy)
    return np.asarray(counts, dtype=np.int64)


def check_rle(rle: Any, size: tuple[int, int] | None = None, where: str = "RLE") -> np.ndarray:
    """Runs of an RLE, after every check that pycocotools leaves out.

    Args:
        rle: ``{"size": [height, width], "counts": ...}`` with compressed counts (str or bytes) or a
            list of runs.
        size: (height, width) that the mask must have; None accepts any up to ``MAX_SIDE``.
        where: Start of an error message: file, id and field.

    Returns:
        Runs, int64, >= 0, in turn of background and foreground, with sum height * width.

    Raises:
        DataError: The RLE is malformed.
    """
    remedy = "Make RLEs with pycocotools.mask.encode."
    if not isinstance(rle, dict):
        raise _fail(where, f"an RLE must be an object, got {_short(rle)}", remedy)
    missing = [key for key in ("size", "counts") if key not in rle]
    if missing:
        raise _fail(
            where, f"an RLE must have 'size' and 'counts', {missing[0]!r} is absent", remedy
        )
    height, width = _check_size(rle["size"], size, where)
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        runs = _decode_counts(counts, height * width, where)
    elif isinstance(counts, (list, tuple)):
        runs = _list_counts(counts, height * width, where)
    else:
        raise _fail(where, f"'counts' must be a string or a list, got {_short(counts)}", remedy)
    if runs.min() < 0:
        raise _fail(where, "'counts' holds a negative run", remedy)
    if int(runs.sum()) != height * width:
        raise _fail(
            where,
            f"the runs must sum to height x width = {height * width}, got {int(runs.sum())}",
            remedy,
        )
    return runs


def _compress(runs: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """Compressed RLE of checked runs; empty runs inside are merged away, as toBbox needs."""
    inner_zeros = runs[1:] == 0
    if inner_zeros.any():
        labels = np.arange(runs.size) % 2
        labels, lengths = labels[runs > 0], runs[runs > 0]
        first = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
        merged = np.add.reduceat(lengths, first)
        runs = np.concatenate([[0], merged]) if labels[0] == 1 else merged
    rle = mask_util.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"]}


def clean_rle(
    rle: Any, size: tuple[int, int] | None = None, where: str = "RLE"
) -> tuple[dict[str, Any], int]:
    """An equal RLE that pycocotools can be given, and its area.

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
    area = int(runs[1::2].sum())
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)) and not (runs[1:] == 0).any():
        data = counts.encode("ascii") if isinstance(counts, str) else counts
        return {"size": [height, width], "counts": data}, area
    return _compress(runs, height, width), area


def decode_rle(rle: Any, where: str = "RLE") -> np.ndarray:
    """Mask (H, W) bool of an RLE that is checked first; raises DataError."""
    clean, _ = clean_rle(rle, where=where)
    return mask_util.decode(clean).astype(bool)


def clean_polygons(
    polygons: Any, height: int, width: int, where: str = "polygons"
) -> tuple[list[list[float]], int]:
    """The usable polygons of one object, and how many were dropped.

    A polygon [x0, y0, x1, y1, ...] in pixels of less than three points, or with an odd count of
    numbers, is dropped.

    Args:
        polygons: List of polygons.
        height: Of the frame, pixels.
        width: Of the frame, pixels.
        where: Start of an error message.

    Returns:
        The polygons, perhaps none, and the number of dropped ones.

    Raises:
        DataError: A polygon is not a list of finite numbers, or lies absurdly far outside the
            frame.
    """
    remedy = "A polygon is a flat list [x0, y0, x1, y1, ...] in pixels."
    if not isinstance(polygons, list):
        raise _fail(where, f"polygons must be a list of lists, got {_short(polygons)}", remedy)
    good: list[list[float]] = []
    limit = 2.0 * max(height, width)  # pycocotools walks along every pixel of an outline
    for i, polygon in enumerate(polygons):
        if not isinstance(polygon, list):
            raise _fail(where, f"polygon {i} must be a list, got {_short(polygon)}", remedy)
        if len(polygon) > MAX_POLYGON_NUMBERS:
            raise _fail(where, f"polygon {i} has more than {MAX_POLYGON_NUMBERS} numbers", remedy)
        for number in polygon:
            if not is_finite_number(number) or abs(number) > limit:
                raise _fail(
                    where,
                    f"polygon {i} must hold finite numbers within +-{limit:g}, got"
                    f" {_short(number)}",
                    remedy,
                )
        if len(polygon) >= 6 and len(polygon) % 2 == 0:
            good.append([float(number) for number in polygon])
    return good, len(polygons) - len(good)


def is_finite_number(value: Any) -> bool:
    """Whether a JSON value is an int or a float, neither NaN nor infinite, and not a bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond float64
        return False


def segmentation_to_rle(
    segmentation: Any, height: int, width: int, where: str = "segmentation"
) -> tuple[dict[str, Any] | None, int, int]:
    """Compressed RLE of whatever form a JSON gives a mask in.

    Args:
        segmentation: RLE (compressed or not), list of polygons, or None.
        height: Of the frame, pixels.
        width: Of the frame, pixels.
        where: Start of an error message: file, id and field.

    Returns:
        The RLE, or None where there is no mask or no usable polygon; its area in pixels (0 for
        None); and the number of polygons dropped.

    Raises:
        DataError: The mask is malformed.
    """
    if segmentation is None:
        return None, 0, 0
    if isinstance(segmentation, dict):
        rle, area = clean_rle(segmentation, (height, width), where)
        return rle, area, 0
    if isinstance(segmentation, list):
        polygons, dropped = clean_polygons(segmentation, height, width, where)
        if not polygons:
            return None, 0, dropped
        rle = mask_util.merge(mask_util.frPyObjects(polygons, height, width))
        rle = {"size": [height, width], "counts": rle["counts"]}
        return rle, int(mask_util.area(rle)), dropped
    raise _fail(
        where,
        f"a mask must be an RLE, a list of polygons or null, got {_short(segmentation)}",
        "Leave 'segmentations' out where there are only boxes.",
    )
