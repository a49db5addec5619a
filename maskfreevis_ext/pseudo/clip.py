"""From the frames and boxes of a clip to the masks of its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.pseudo.features import extract_features
from maskfreevis_ext.pseudo.grabcut import sharpen
from maskfreevis_ext.pseudo.pixel_head import PixelHeadSettings, fit_pixel_head
from maskfreevis_ext.pseudo.refine import refine
from maskfreevis_ext.pseudo.windows import ObjectWindows, place_windows

_OBJECTS_TOGETHER = 2  # objects fitted at once; more do not fit the caches of a processor
_GRABCUT_ITERATIONS = 2


@dataclass(frozen=True)
class ClipMasks:
    """Masks of the N objects of a clip of T frames, kept as small maps.

    Attributes:
        frames: T frames, (H, W, 3) uint8, RGB.
        windows: Where the maps lie.
        raw: Probabilities of the pixel head, (N, T, S, S) float32.
        refined: The same after smoothing by colour.
    """

    frames: Sequence[np.ndarray]
    windows: ObjectWindows
    raw: Tensor
    refined: Tensor

    def mask(self, index: int, frame: int) -> np.ndarray:
        """Mask of an object in a frame, (H, W) bool; empty where it has no box.

        GrabCut decides the uncertain pixels, unless the boxes of other objects overlap that of the
        object: they often have its colours.
        """
        probability = self._lay(self.refined, index, frame)
        boxes = self.windows.boxes[:, frame]
        if not self.windows.is_present[index, frame] or _is_overlapped(boxes, index):
            return probability > 0.5
        raw = self._lay(self.raw, index, frame)
        return sharpen(self.frames[frame], boxes[index], probability, raw, _GRABCUT_ITERATIONS)

    def confidence(self, index: int) -> float:
        """How decided the pixel head is about an object, in [0, 1].

        It is the IoU of its mask with its probabilities, which is the IoU to be expected if they
        were right; 0 for an object without a mask.
        """
        shared = union = 0.0
        for frame in np.flatnonzero(self.windows.is_present[index]):
            probability = self._lay(self.raw, index, int(frame))
            mask = probability > 0.5
            shared += float(probability[mask].sum())
            union += float(mask.sum() + probability[~mask].sum())
        return shared / union if union else 0.0

    def _lay(self, maps: Tensor, index: int, frame: int) -> np.ndarray:
        return self.windows.to_frame(maps[index, frame].numpy(), index, frame)


def _is_overlapped(boxes: np.ndarray, index: int) -> bool:
    """Whether one of the other boxes shares pixels with a box; boxes (N, 4)."""
    others = np.delete(boxes, index, axis=0)
    low = np.maximum(others[:, :2], boxes[index, :2])
    high = np.minimum(others[:, 2:], boxes[index, 2:])
    return bool((high > low).all(-1).any())


def segment_clip(
    frames: Sequence[np.ndarray],
    boxes: np.ndarray,
    backbone: nn.Module,
    settings: PixelHeadSettings | None = None,
) -> ClipMasks:
    """Fit a pixel head to the objects of a clip, and give their masks.

    Args:
        frames: T frames of one size, (H, W, 3) uint8, RGB.
        boxes: (N, T, 4), x0, y0, x1, y1 in pixels; empty (x1 <= x0) where an object is absent. Each
            object has a box in at least one frame.
        backbone: Takes (RGB - 127) / 128, (B, 3, H, W), and gives named maps, the finest first at
            stride 4; in evaluation mode. ``EfficientNetLite0`` with ImageNet weights is meant.
        settings: How to fit; None for the defaults.

    Returns:
        The masks.

    Raises:
        DataError: The frames differ in size, or their number is not that of the boxes.
    """
    settings = settings or PixelHeadSettings()
    sizes = {frame.shape[:2] for frame in frames}
    if len(sizes) != 1 or len(frames) != boxes.shape[1]:
        raise DataError(
            f"expected {boxes.shape[1]} frames of one size, got {len(frames)} of the sizes "
            f"{sorted(sizes)} (height, width)."
        )
    windows = place_windows(boxes, sizes.pop(), settings.grid, settings.margin)
    parts = []
    for start in range(0, len(boxes), _OBJECTS_TOGETHER):
        chosen = slice(start, start + _OBJECTS_TOGETHER)
        part = ObjectWindows(
            windows.boxes[chosen], windows.places[chosen], windows.frame_size, windows.grid
        )
        features = extract_features(
            frames, part, backbone, settings.components, settings.use_motion
        )
        raw = fit_pixel_head(features, part, settings)
        parts.append((raw, refine(raw, features.lab) * part.inside_frame()))
    raws, refined = zip(*parts, strict=True)
    return ClipMasks(frames, windows, torch.cat(raws), torch.cat(refined))
