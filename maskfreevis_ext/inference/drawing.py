"""Drawing of tracks on frames, and contact sheets of videos.

Frames are RGB uint8 [H,W,3]. BGR frames work too; red and blue of the drawn colours are then
exchanged.
"""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from maskfreevis_ext.data.boxes import tight_box
from maskfreevis_ext.tracks import Item

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN_RATIO = 0.61803398875  # step in hue that keeps the colours of successive ids apart
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_MARGIN = 6  # pixels between the cells of a sheet
_LEGEND_HEIGHT, _LEGEND_LETTER = 18, 7  # pixels: height of a line, mean width of a letter


@dataclass(frozen=True)
class SheetRow:
    """One row of a contact sheet.

    Attributes:
        title: Line above the row.
        cells: Pictures, RGB uint8, of any size.
        captions: Text below each cell; may be empty.
    """

    title: str
    cells: Sequence[np.ndarray]
    captions: Sequence[str] = ()


def color_of(track_id: int) -> tuple[int, int, int]:
    """Colour (red, green, blue) in 0..255 of a track id, always the same."""
    hue = (0.02 + _GOLDEN_RATIO * track_id) % 1.0
    value = 1.0 if track_id % 2 == 0 else 0.85
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_items(frame: np.ndarray, items: Sequence[Item], alpha: float = 0.45) -> np.ndarray:
    """Draw objects: the mask in the track's colour with its contour, the box, and the label.

    Masks and contours change pixels inside the masks only. Later items are drawn over earlier ones,
    labels over everything.

    Args:
        frame: RGB uint8 [H,W,3]; not changed.
        items: Objects; one without mask and box is not drawn.
        alpha: Weight of the colour inside filled masks, 0..1.

    Returns:
        A new picture of the same shape.

    Raises:
        ValueError: The frame is not uint8 [H,W,3], or a mask has another size.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"expected a frame uint8 [H,W,3], got {frame.dtype} {list(frame.shape)}.")
    picture = np.ascontiguousarray(frame).copy()
    line = _line_width(picture)
    labels: list[tuple[Item, _Anchor]] = []
    for item in items:
        color = item.color or color_of(item.track_id)
        anchor = None
        if item.box is not None:
            x0, y0, x1, y1 = (round(float(value)) for value in item.box)
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), color, line)
            anchor = _Anchor(y0, y1, (x0 + x1) // 2, (x0 + x1) // 2)
        if item.mask is not None:
            mask = np.asarray(item.mask, dtype=bool)
            weight = alpha if item.is_filled else 0.0
            anchor = _draw_mask(picture, mask, color, weight, line) or anchor
        if anchor is not None and item.label:
            labels.append((item, anchor))

    taken: list[tuple[int, int, int, int]] = []
    for item, anchor in labels:
        color = item.color or color_of(item.track_id)
        taken.append(_draw_label(picture, item.label, color, anchor, taken))
    return picture


def resize_frame(
    frame: np.ndarray, items: Sequence[Item], factor: float
) -> tuple[np.ndarray, list[Item]]:
    """Scale a frame and its objects before labels are drawn, which keep their size in pixels.

    Args:
        frame: RGB uint8 [H,W,3].
        items: Its objects.
        factor: Size of the new frame over that of the old one, > 0.

    Returns:
        The new frame and objects.
    """
    height, width = (max(1, round(side * factor)) for side in frame.shape[:2])
    mode = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    scaled = []
    for item in items:
        mask, box = item.mask, item.box
        if mask is not None:
            # Linear interpolation, then a threshold of 0.5: smooth edges where a mask is enlarged.
            soft = np.asarray(mask, dtype=np.float32)
            mask = cv2.resize(soft, (width, height), interpolation=mode) > 0.5
        if box is not None:
            box = (box[0] * factor, box[1] * factor, box[2] * factor, box[3] * factor)
        scaled.append(replace(item, mask=mask, box=box))
    return cv2.resize(frame, (width, height), interpolation=mode), scaled


def contact_sheet(rows: Sequence[SheetRow], cell_height: int = 180, legend: str = "") -> np.ndarray:
    """Arrange pictures in rows on white, each row with a title and captions.

    Args:
        rows: The rows; they may differ in the number and size of their cells.
        cell_height: Height of every cell in pixels; widths keep the pictures' proportions.
        legend: ASCII text above the first row; wrapped to the width of the sheet.

    Returns:
        RGB uint8 picture.

    Raises:
        ValueError: No row has a cell.
    """
    if not any(row.cells for row in rows):
        raise ValueError("expected at least one cell for the contact sheet, got none.")
    scaled = [[_to_height(cell, cell_height) for cell in row.cells] for row in rows]
    columns = max(len(cells) for cells in scaled)
    cell_width = max(cell.shape[1] for cells in scaled for cell in cells)
    row_height = 24 + cell_height + (20 if any(row.captions for row in rows) else 0) + _MARGIN
    width = _MARGIN + (cell_width + _MARGIN) * columns
    lines = textwrap.wrap(legend, max(1, (width - 2 * _MARGIN) // _LEGEND_LETTER))
    start = _MARGIN + _LEGEND_HEIGHT * len(lines)
    sheet = np.empty((start + row_height * len(rows), width, 3), np.uint8)
    sheet[:] = _PAPER
    for index, line in enumerate(lines):
        _put_text(sheet, line, (_MARGIN, 16 + _LEGEND_HEIGHT * index), 0.4, _INK)
    for index, (row, cells) in enumerate(zip(rows, scaled, strict=True)):
        top = start + index * row_height
        _put_text(sheet, row.title, (_MARGIN, top + 16), 0.5, _INK)
        for column, cell in enumerate(cells):
            left = _MARGIN + column * (cell_width + _MARGIN)
            sheet[top + 24 : top + 24 + cell_height, left : left + cell.shape[1]] = cell
            if column < len(row.captions):
                _put_text(
                    sheet, row.captions[column], (left, top + 24 + cell_height + 14), 0.4, _INK
                )
    return sheet


def spread_indices(length: int, count: int) -> list[int]:
    """Indices of at most ``count`` of ``length`` frames, evenly spread, the ends included."""
    if count <= 1 or length <= 1:
        return [0] if length and count else []
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(int)).tolist()


class _Anchor(NamedTuple):
    """Places for a label: the rows above and below the object, and its first and last column."""

    top: int
    bottom: int
    top_x: int
    bottom_x: int


def _draw_mask(
    picture: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], alpha: float, line: int
) -> _Anchor | None:
    """Blend a mask into the picture, in place; returns the places for its label, None if empty."""
    if mask.shape != picture.shape[:2]:
        raise ValueError(
            f"expected a mask of size {list(picture.shape[:2])}, got {list(mask.shape)}."
        )
    box = tight_box(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    part, inside = picture[y0:y1, x0:x1], mask[y0:y1, x0:x1]
    blended = (1.0 - alpha) * part[inside] + alpha * np.array(color, dtype=np.float32)
    part[inside] = blended.round().astype(np.uint8)
    kernel = np.ones((2 * line + 1, 2 * line + 1), np.uint8)
    padded = cv2.copyMakeBorder(
        inside.astype(np.uint8), line, line, line, line, cv2.BORDER_CONSTANT, value=0
    )
    core = cv2.erode(padded, kernel)[line:-line, line:-line].astype(bool)
    part[inside & ~core] = color
    top_x, bottom_x = (x0 + int(np.median(np.flatnonzero(inside[row]))) for row in (0, -1))
    return _Anchor(y0, y1, top_x, bottom_x)


def _draw_label(
    picture: np.ndarray,
    text: str,
    color: tuple[int, int, int],
    anchor: _Anchor,
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """Write a label near its object without covering another; returns (x, y, width, height)."""
    height, width = picture.shape[:2]
    scale = float(np.clip(min(height, width) / 900, 0.38, 1.2))
    thickness = 1 if scale < 0.8 else 2
    (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, scale, thickness)
    box_width, box_height = text_width + 4, text_height + baseline + 3
    top, bottom = anchor.top, anchor.bottom
    wanted = [(anchor.top_x, y) for y in (top - box_height, top - 2 * box_height)]
    wanted += [(anchor.bottom_x, y) for y in (bottom, bottom + box_height)]
    rows = sorted(
        range(0, height, box_height), key=lambda y: abs(y - top)
    )  # crowded: the nearest free row
    wanted += [(anchor.top_x, y) for y in (top, *rows)]
    places = [
        (int(np.clip(x - box_width // 2, 0, max(0, width - box_width))), y, box_width, box_height)
        for x, y in wanted
        if 0 <= y <= height - box_height
    ] or [(0, 0, box_width, box_height)]
    place = next(
        (place for place in places if not any(_overlap(place, other) for other in taken)), places[0]
    )
    cv2.rectangle(
        picture, place[:2], (place[0] + box_width - 1, place[1] + box_height - 1), color, -1
    )
    is_bright = np.dot(color, (0.299, 0.587, 0.114)) > 140
    ink = (0, 0, 0) if is_bright else (255, 255, 255)
    _put_text(picture, text, (place[0] + 2, place[1] + text_height + 2), scale, ink, thickness)
    return place


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


def _put_text(
    picture: np.ndarray,
    text: str,
    origin: tuple[int, int],
    scale: float,
    color: tuple[int, int, int],
    thickness: int = 1,
) -> None:
    cv2.putText(picture, text, origin, _FONT, scale, color, thickness, cv2.LINE_AA)


def _line_width(picture: np.ndarray) -> int:
    return max(1, round(min(picture.shape[:2]) / 360))


def _to_height(picture: np.ndarray, height: int) -> np.ndarray:
    if picture.shape[0] == height:
        return picture
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    mode = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=mode)
