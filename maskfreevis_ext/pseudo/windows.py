"""Square windows around the boxes of objects, in which every object has about the same size.

N objects, T frames, (H, W) frame, S x S cells of a window. Pixel (x, y) covers [x, x + 1) x
[y, y + 1). An object is absent from the frames in which its box is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from maskfreevis_ext.data.boxes import has_area

#: Shortest side of a box that still decides the size of its window, in pixels.
_SHORTEST_SIDE = 24.0


@dataclass(frozen=True)
class ObjectWindows:
    """Where the windows of the objects of a clip lie.

    Attributes:
        boxes: (N, T, 4) float64, x0, y0, x1, y1 in pixels; an absent object has an empty box.
        places: (N, T, 3) float64, centre x, centre y and side of the window in pixels.
        frame_size: (H, W).
        grid: S, cells of a side.
    """

    boxes: np.ndarray
    places: np.ndarray
    frame_size: tuple[int, int]
    grid: int

    @property
    def is_present(self) -> np.ndarray:
        """(N, T) bool, whether an object has a box in a frame."""
        return has_area(self.boxes)

    def crop(self, picture: np.ndarray, index: int, frame: int, side: int) -> np.ndarray:
        """Cut a window out of a picture; what lies outside the picture repeats its border.

        Args:
            picture: (H, W) or (H, W, C), uint8 or float32.
            index: Object.
            frame: Frame that the picture belongs to.
            side: Pixels of a side of the result.

        Returns:
            (side, side) or (side, side, C), dtype of ``picture``.
        """
        x, y, length = self.places[index, frame]
        scale = side / length
        if scale < 0.75:  # bilinear sampling alone would skip pixels
            picture = cv2.GaussianBlur(picture, (0, 0), 0.5 / scale)
        shift = [side / 2 - x * scale, side / 2 - y * scale]
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        return cv2.warpAffine(
            picture, _by_centres(matrix), (side, side), borderMode=cv2.BORDER_REPLICATE
        )

    def to_frame(self, values: np.ndarray, index: int, frame: int) -> np.ndarray:
        """Lay a map of a window back into its frame, zero outside the object's box.

        Args:
            values: (S, S), floating point.
            index: Object.
            frame: Frame.

        Returns:
            (H, W) float32.
        """
        height, width = self.frame_size
        result = np.zeros((height, width), np.float32)
        if not self.is_present[index, frame]:
            return result
        x, y, length = self.places[index, frame]
        scale = length / len(values)
        matrix = np.array([[scale, 0, x - length / 2], [0, scale, y - length / 2]])
        laid = cv2.warpAffine(
            values.astype(np.float32),
            _by_centres(matrix),
            (width, height),
            borderMode=cv2.BORDER_REPLICATE,
        )
        x0, y0, x1, y1 = pixel_box(self.boxes[index, frame], self.frame_size)
        result[y0:y1, x0:x1] = laid[y0:y1, x0:x1]
        return result

    def profiles(self, boxes: np.ndarray | None = None) -> Tensor:
        """Shares of the rows and columns of the windows that boxes cover.

        Args:
            boxes: (N, T, 4) or (1, T, 4), a box in each window, empty where there is none; None:
                those of the objects.

        Returns:
            (N, T, 2, S) float32 in [0, 1]: rows, then columns; zeros where there is no box.
        """
        boxes = self.boxes if boxes is None else boxes
        x, y, length = np.moveaxis(self.places, -1, 0)
        edges = np.arange(self.grid)
        shares = []
        for low, high, centre in (
            (boxes[..., 1], boxes[..., 3], y),
            (boxes[..., 0], boxes[..., 2], x),
        ):
            cells = self.grid / length
            start = ((low - centre + length / 2) * cells)[..., None]
            end = ((high - centre + length / 2) * cells)[..., None]
            shares.append(np.clip(np.minimum(edges + 1, end) - np.maximum(edges, start), 0, 1))
        covered = np.stack(shares, 2) * has_area(boxes)[..., None, None]
        return torch.from_numpy(covered.astype(np.float32))

    def covered_by_others(self, chosen: Sequence[int]) -> Tensor:
        """Shares of the cells that the boxes of all other objects cover.

        Args:
            chosen: Objects, n of them.

        Returns:
            (n, T, S, S) float32 in [0, 1]; where boxes overlap, the largest share.
        """
        covered = torch.zeros(len(chosen), self.boxes.shape[1], self.grid, self.grid)
        for number, index in enumerate(chosen):
            window = replace(self, boxes=self.boxes[[index]], places=self.places[[index]])
            for other in range(len(self.boxes)):
                if other != index:
                    rows, cols = window.profiles(self.boxes[[other]])[0].unbind(1)
                    share = rows[:, :, None] * cols[:, None, :]
                    torch.maximum(covered[number], share, out=covered[number])
        return covered

    def inside_frame(self) -> Tensor:
        """Cells whose centre lies in the frame, (N, T, S, S) bool."""
        x, y, length = (part[..., None] for part in np.moveaxis(self.places, -1, 0))
        centres = (np.arange(self.grid) + 0.5) / self.grid - 0.5
        rows, cols = y + centres * length, x + centres * length
        rows = (rows > 0) & (rows < self.frame_size[0])
        cols = (cols > 0) & (cols < self.frame_size[1])
        return torch.from_numpy(rows[..., :, None] & cols[..., None, :])


def place_windows(
    boxes: np.ndarray, frame_size: tuple[int, int], grid: int, margin: float
) -> ObjectWindows:
    """Windows around boxes: ``margin`` times the longer side of the box, with its centre.

    Args:
        boxes: (N, T, 4), x0, y0, x1, y1 in pixels; empty where an object is absent.
        frame_size: (H, W).
        grid: S, cells of a side.
        margin: Side of the window divided by the longer side of the box, above 1.

    Returns:
        The windows; an absent object has one of the whole frame.

    Raises:
        ValueError: ``boxes`` has another shape, or ``margin`` is not above 1.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 3 or boxes.shape[-1] != 4:
        raise ValueError(f"expected boxes (N, T, 4), got {boxes.shape}")
    if margin <= 1:
        raise ValueError(f"expected a margin above 1, got {margin}")
    longest = float(max(frame_size))
    sides = boxes[..., 2:] - boxes[..., :2]
    length = margin * sides.max(-1, initial=_SHORTEST_SIDE)
    length = np.minimum(length, 1.25 * longest)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    places = np.concatenate([centres, length[..., None]], -1)
    is_absent = (sides <= 0).any(-1)
    places[is_absent] = frame_size[1] / 2, frame_size[0] / 2, longest
    return ObjectWindows(boxes, places, frame_size, grid)


def pixel_box(box: np.ndarray, frame_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of a box: x0, y0, x1, y1 rounded, cut to the frame, at least one pixel."""
    x0, x1 = _pixel_range(box[0], box[2], frame_size[1])
    y0, y1 = _pixel_range(box[1], box[3], frame_size[0])
    return x0, y0, x1, y1


def box_mask(box: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """The filled box, (H, W) bool; its pixels are those of ``pixel_box``."""
    x0, y0, x1, y1 = pixel_box(box, frame_size)
    mask = np.zeros(frame_size, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _pixel_range(low: float, high: float, length: int) -> tuple[int, int]:
    start = min(max(round(float(low)), 0), length - 1)
    return start, max(min(round(float(high)), length), start + 1)


def _by_centres(matrix: np.ndarray) -> np.ndarray:
    """A map between coordinates of edges as OpenCV needs it, between centres of pixels."""
    shifted = matrix.copy()
    shifted[:, 2] += (matrix[:, :2] - np.eye(2)) @ np.array([0.5, 0.5])
    return shifted
