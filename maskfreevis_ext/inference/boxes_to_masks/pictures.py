"""Small pictures of an object with the outline of its mask, for the review page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from maskfreevis_ext.inference.drawing import draw_items, resize_frame, spread_indices
from maskfreevis_ext.tracks import Item

_SPREAD = 5  # frames over the life of the object ...
_WORST = 3  # ... and those with the least confidence
_HEIGHT = 180  # pixels of a picture
_MARGIN = 0.25  # of the box, seen around it
_QUALITY = 80  # of the JPEG
_COLOR = (255, 64, 160)  # which few things have


@dataclass
class Picture:
    """A frame of an object.

    Attributes:
        frame: Its number.
        confidence: Of the mask, in [0, 1].
        data: JPEG.
    """

    frame: int
    confidence: float
    data: bytes


@dataclass
class Pictures:
    """A few pictures of an object: spread over its frames, and the least certain ones.

    Attributes:
        spread: By frame.
        worst: By frame.
    """

    spread: dict[int, Picture] = field(default_factory=dict)
    worst: dict[int, Picture] = field(default_factory=dict)

    def wanted(self, is_present: np.ndarray) -> set[int]:
        """Frames to show in any case, of those where an object is present, (T,) bool."""
        frames = np.flatnonzero(is_present)
        return {int(frames[place]) for place in spread_indices(len(frames), _SPREAD)}

    def offer(
        self,
        frame: int,
        confidence: float,
        is_wanted: bool,
        picture: np.ndarray,
        box: np.ndarray,
        mask: np.ndarray,
    ) -> None:
        """Keep a frame if it is one of those to show.

        Args:
            frame: Its number.
            confidence: Of the mask, in [0, 1].
            is_wanted: Keep it in any case.
            picture: (H, W, 3) uint8, RGB.
            box: x0, y0, x1, y1 in pixels.
            mask: (H, W) bool.
        """
        worst = max(self.worst.values(), key=lambda one: one.confidence, default=None)
        is_worse = len(self.worst) < _WORST or (worst is not None and confidence < worst.confidence)
        if not (is_wanted or is_worse):
            return
        made = Picture(frame, confidence, draw_object(picture, box, mask))
        if is_wanted:
            self.spread[frame] = made
        if is_worse:
            if worst is not None and len(self.worst) == _WORST:
                del self.worst[worst.frame]
            self.worst[frame] = made

    def in_order(self) -> list[Picture]:
        """All of them by frame."""
        return [one for _, one in sorted((self.spread | self.worst).items())]


def draw_object(picture: np.ndarray, box: Sequence[float] | np.ndarray, mask: np.ndarray) -> bytes:
    """An object with the outline of its mask and its box, as JPEG of about 180 pixels height.

    Args:
        picture: (H, W, 3) uint8, RGB.
        box: x0, y0, x1, y1 in pixels.
        mask: (H, W) bool.
    """
    height, width = mask.shape
    x0, y0, x1, y1 = (float(value) for value in box)
    margin = max(_MARGIN * max(x1 - x0, y1 - y0), 8.0)
    cols = slice(max(int(x0 - margin), 0), min(int(x1 + margin) + 1, width))
    rows = slice(max(int(y0 - margin), 0), min(int(y1 + margin) + 1, height))
    part = np.ascontiguousarray(picture[rows, cols])
    place = (x0 - cols.start, y0 - rows.start, x1 - cols.start, y1 - rows.start)
    factor = min(_HEIGHT / part.shape[0], 2 * _HEIGHT / part.shape[1])
    items = [
        Item(0, "", None, place, (255, 255, 255)),
        Item(0, "", mask[rows, cols], None, _COLOR, is_filled=False),
    ]
    drawn = draw_items(*resize_frame(part, items, factor))
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return data.tobytes()
