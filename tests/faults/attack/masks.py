"""Malformed run-length masks and polygons."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.data.track_masks import check_masks
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.polygons import segmentation_to_rle
from maskfreevis_ext.rle import clean_rle, decode_rle
from maskfreevis_ext.tracks import decode_track
from tests.faults.attack.cases import attack

_AT_ONCE = 20  # masks of one case
_CHARACTERS = bytes(range(40, 120)) + b"\0\xff"


def _plain_runs(counts: bytes) -> list[int] | None:
    """Run lengths by the definition of the format, one character after the other."""
    runs: list[int] = []
    position = 0
    while position < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if position >= len(counts) or not 48 <= counts[position] <= 111:
                return None
            bits = counts[position] - 48
            value |= (bits & 31) << shift
            more = bool(bits & 32)
            shift += 5
            position += 1
            if not more and bits & 16:
                value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _is_mask(rle: Any, height: int, width: int) -> bool:
    """Whether an RLE is one of a mask of this size, by the definition of the format."""
    counts = rle.get("counts")
    if isinstance(counts, str):
        if not counts.isascii():
            return False
        counts = counts.encode()
    runs = _plain_runs(counts) if isinstance(counts, bytes) else counts
    return (
        isinstance(runs, list)
        and rle.get("size") == [height, width]
        and all(type(run) is int and run >= 0 for run in runs)
        and sum(runs) == height * width
    )


def _random_rle(rng: random.Random) -> tuple[dict[str, Any], int, int]:
    """An RLE, mostly with something wrong, and the size that it should have."""
    height, width = rng.randint(1, 40), rng.randint(1, 40)
    pixels = np.array([rng.random() < 0.3 for _ in range(height * width)], dtype=np.uint8)
    good = mask_util.encode(np.asfortranarray(pixels.reshape(height, width)))
    counts: Any = good["counts"]
    size: Any = [height, width]
    kind = rng.randrange(9)
    if kind == 1:
        counts = counts[: rng.randrange(len(counts) + 1)]
    elif kind == 2:
        counts = bytes(rng.choice(_CHARACTERS) for _ in range(rng.randrange(30)))
    elif kind == 3:
        changed = bytearray(counts)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.choice(_CHARACTERS)
        counts = bytes(changed)
    elif kind == 4:
        size = rng.choice([[0, 0], [height, -width], [width, height], [10**6, 10**6], [height], 5])
    elif kind == 5:
        counts = [rng.choice([0, 1, 5, -1, 2**31, 2**63, 10**30, 1.5, None, "3", True])] * 3
    elif kind == 6:
        counts = rng.choice([b"", [], None, 5, b"o" * 40, b"0" * 5000, b"P" * 30])
    elif kind == 7:
        counts = counts + counts
    if isinstance(counts, bytes) and rng.random() < 0.5:
        counts = counts.decode("latin-1")
    return {"size": size, "counts": counts}, height, width


@attack(
    "malformed RLEs, 20 a case, through five readers",
    "refused, or exactly the mask that the format defines",
    count=1500,
    quick=40,
    limit=20,
)
def rle(index: int, rng: random.Random, folder: Path) -> str | None:
    """Readers of masks against a decoder that follows the definition."""
    for _ in range(_AT_ONCE):
        mask, height, width = _random_rle(rng)
        fault = _fault_of(mask, height, width)
        if fault:
            return f"{fault}: {mask}, {height} x {width}"
    return None


def _fault_of(mask: dict[str, Any], height: int, width: int) -> str | None:
    expected = _is_mask(mask, height, width)
    readers = {
        "clean_rle": lambda: clean_rle(mask, (height, width)),
        "decode_rle": lambda: decode_rle(mask),
        "check_masks": lambda: check_masks([None, mask], height, width, str),
        "segmentation_to_rle": lambda: segmentation_to_rle(mask, height, width),
        "decode_track": lambda: decode_track([mask, None], height, width, "track"),
    }
    for name, read in readers.items():
        try:
            read()
        except DataError:
            if expected:
                return f"{name} refuses a sound mask"
            continue
        if not expected and name != "decode_rle":  # which is not told the size
            return f"{name} accepts what is no mask of the size"
    if expected:
        clean, area = clean_rle(mask)
        if not area == mask_util.area(clean) == decode_rle(mask).sum():
            return "another area"
    return None


def _random_polygons(rng: random.Random, side: int) -> list[Any]:
    kind = rng.randrange(7)
    if kind == 0:  # one zigzag over the whole frame, as long as it may be
        far = rng.choice([1, 2, 3]) * side
        return [[-far, -far, far, far] * rng.choice([10, 1000, 40_000])]
    if kind == 1:
        return [[rng.choice([float("nan"), float("inf"), -1e308, 10**400, None, "1", True])] * 6]
    if kind == 2:
        return [[0.0, 0.0] * rng.randrange(4)]
    if kind == 3:
        return [[rng.uniform(-2 * side, 3 * side) for _ in range(rng.randrange(13))]]
    if kind == 4:
        return [[0, 0, side, 0, side, side]] * rng.choice([1, 100, 3000])
    if kind == 5:
        return [rng.choice([[], [[]], {}, None, 3, "x", [[0, 0], [1, 1], [2, 2]]])]
    return [[rng.uniform(0, side) for _ in range(2 * rng.randint(3, 400))]]


@attack(
    "malformed polygons: zigzags, NaN, far corners, thousands of parts",
    "refused, or a mask inside the frame; in seconds, within 2 GB",
    count=1500,
    quick=30,
    limit=20,
)
def polygons(index: int, rng: random.Random, folder: Path) -> str | None:
    """Polygons in frames of ordinary and of the largest size."""
    side = rng.choice([1, 7, 64, 720, 2000, 16384])
    polygon = _random_polygons(rng, side)
    try:
        found, area, _ = segmentation_to_rle(polygon, side, side, "file: segmentations[0]")
    except DataError as error:
        return None if str(error).startswith("file: segmentations[0]") else f"no place: {error}"
    if found is None:
        return None
    clean_rle(found, (side, side))
    return None if 0 <= area <= side * side else f"area {area} in a frame of side {side}"
