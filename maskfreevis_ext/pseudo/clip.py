"""From the frames and boxes of a clip to the masks of its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.pseudo.features import extract_features
from maskfreevis_ext.pseudo.pixel_head import PixelHeadSettings, fit_pixel_head
from maskfreevis_ext.pseudo.windows import ObjectWindows, place_windows

_OBJECTS_TOGETHER = 8  # objects whose features are held in memory at once


@dataclass(frozen=True)
class ClipMasks:
    """Masks of the N objects of a clip of T frames, kept as small maps.

    Attributes:
        windows: Where the maps lie.
        probabilities: (N, T, S, S) float32.
    """

    windows: ObjectWindows
    probabilities: Tensor

    def probability(self, index: int, frame: int) -> np.ndarray:
        """Probability of an object in a frame, (H, W) float32; zero outside its box."""
        return self.windows.to_frame(self.probabilities[index, frame].numpy(), index, frame)

    def mask(self, index: int, frame: int) -> np.ndarray:
        """Mask of an object in a frame, (H, W) bool; empty where it has no box."""
        return self.probability(index, frame) > 0.5

    def confidence(self, index: int) -> float:
        """How decided the probabilities of an object are, in [0, 1].

        It is the IoU of the mask with the probabilities, which is the IoU to be expected if they
        were right; 0 for an object without a mask.
        """
        shared = union = 0.0
        for frame in range(self.probabilities.shape[1]):
            probability = self.probability(index, frame)
            mask = probability > 0.5
            shared += float(probability[mask].sum())
            union += float(mask.sum() + probability[~mask].sum())
        return shared / union if union else 0.0


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
        parts.append(fit_pixel_head(features, part, settings))
    return ClipMasks(windows, torch.cat(parts))
