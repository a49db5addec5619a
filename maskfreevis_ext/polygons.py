"""Masks given as polygons, bounded before pycocotools draws them."""

from __future__ import annotations

from reprlib import repr as _short
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from maskfreevis_ext.rle import clean_rle, is_finite_number, mask_fault, merge_rles

#: Most numbers in one polygon.
MAX_POLYGON_NUMBERS = 200_000
#: Longest outline of all polygons of an object, pixels. pycocotools walks along it in steps of a
#: fifth of a pixel and takes memory for each; beyond 2**31 steps it writes outside of that memory.
MAX_OUTLINE = 2_000_000


def clean_polygons(
    polygons: Any, height: int, width: int, where: str = "polygons"
) -> tuple[list[list[float]], int]:
    """The usable polygons [x0, y0, x1, y1, ...] of one object, and how many were dropped.

    A polygon of less than three points, or with an odd count of numbers, is dropped.

    Args:
        polygons: List of polygons.
        height: Of the frame, pixels.
        width: Of the frame, pixels.
        where: Start of an error message.

    Returns:
        The polygons, perhaps none, and the number of dropped ones.

    Raises:
        DataError: A polygon is not a list of finite numbers, or lies absurdly far outside the
            frame, or the outlines are absurdly long.
    """
    remedy = "A polygon is a flat list [x0, y0, x1, y1, ...] in pixels."
    if not isinstance(polygons, list):
        raise mask_fault(where, f"polygons must be a list of lists, got {_short(polygons)}", remedy)
    good: list[list[float]] = []
    limit = 2.0 * max(height, width)  # pycocotools walks along every pixel of an outline
    for i, polygon in enumerate(polygons):
        if not isinstance(polygon, list):
            raise mask_fault(where, f"polygon {i} must be a list, got {_short(polygon)}", remedy)
        if len(polygon) > MAX_POLYGON_NUMBERS:
            raise mask_fault(
                where, f"polygon {i} has more than {MAX_POLYGON_NUMBERS} numbers", remedy
            )
        for number in polygon:
            if not is_finite_number(number) or abs(number) > limit:
                text = f"finite numbers within +-{limit:g}, got {_short(number)}"
                raise mask_fault(where, f"polygon {i} must hold {text}", remedy)
        if len(polygon) >= 6 and len(polygon) % 2 == 0:
            good.append([float(number) for number in polygon])
    outline = sum(map(_outline_of, good))
    if outline > MAX_OUTLINE:
        text = f"the outline must have at most {MAX_OUTLINE} pixels, got {outline:.0f} (a zigzag?)"
        raise mask_fault(where, text, "Store such a mask as RLE.")
    return good, len(polygons) - len(good)


def _outline_of(polygon: list[float]) -> float:
    """Pixels along the outline of a polygon, and one for each of its points."""
    points = np.asarray(polygon).reshape(-1, 2)
    steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1)
    return float(steps.sum()) + len(points)


def segmentation_to_rle(
    segmentation: Any, height: int, width: int, where: str = "segmentation"
) -> tuple[dict[str, Any] | None, int, int]:
    """Convert a mask in any form that JSON files use to a compressed RLE.

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
        rle = merge_rles(mask_util.frPyObjects(polygons, height, width))
        return rle, int(mask_util.area(rle)), dropped
    text = f"a mask must be an RLE, a list of polygons or null, got {_short(segmentation)}"
    raise mask_fault(where, text, "Leave 'segmentations' out where there are only boxes.")
