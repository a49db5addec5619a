"""What the pixel head looks at: frozen features, colour and motion in the windows of the objects.

N objects, T frames, S x S cells of a window, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfreevis_ext.ops.color import rgb_to_lab
from maskfreevis_ext.pseudo.motion import residual_motion
from maskfreevis_ext.pseudo.windows import ObjectWindows

#: Pixels per cell of a window.
STRIDE = 4
_FRAMES_TOGETHER = 8  # windows that pass the backbone at once
_SAMPLE_STEP = 4  # cells between the samples of the principal components, and frames / 2
_EPS = 1e-3


@dataclass(frozen=True)
class WindowFeatures:
    """Inputs of the pixel head.

    Attributes:
        values: (N, T, D, S, S), float16, standardized.
        lab: Mean Lab colour of each cell, (N, T, 3, S, S), float32.
    """

    values: Tensor
    lab: Tensor


def extract_features(
    frames: Sequence[np.ndarray],
    windows: ObjectWindows,
    backbone: nn.Module,
    components: int,
    use_motion: bool,
) -> WindowFeatures:
    """Features of the windows of all objects of a clip.

    The maps of the backbone are standardized per channel and object, divided by the square root of
    their number of channels, so that each stride counts alike, brought to stride 4, and reduced to
    their principal components.

    Args:
        frames: T frames, (H, W, 3) uint8, RGB.
        windows: Windows of the N objects.
        backbone: Takes (RGB - 127) / 128, (B, 3, H, W), and gives named maps.
        components: Principal components that are kept.
        use_motion: Add six channels of motion against the background.

    Returns:
        The features; D is ``components`` + 3, and 6 more with motion.
    """
    motion: list[np.ndarray] = []
    if use_motion:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        motion = [residual_motion(grey, windows.boxes, t) for t in range(len(frames))]
    values, labs = [], []
    for index in range(len(windows.boxes)):
        pixels = _crops(frames, windows, index, windows.grid * STRIDE)
        lab = rgb_to_lab(F.avg_pool2d(pixels, STRIDE))
        parts = [_principal_maps(_run(backbone, pixels), components), _standardize(lab)]
        if motion:
            parts.append(_standardize(_crops(motion, windows, index, windows.grid)))
        values.append(torch.cat(parts, 1).half())
        labs.append(lab)
    return WindowFeatures(torch.stack(values), torch.stack(labs))


def _crops(pictures: Iterable[np.ndarray], windows: ObjectWindows, index: int, side: int) -> Tensor:
    """The windows of one object, (T, C, side, side) float32."""
    crops = [windows.crop(picture, index, t, side) for t, picture in enumerate(pictures)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()


@torch.no_grad()
def _run(backbone: nn.Module, pixels: Tensor) -> list[Tensor]:
    parts = [backbone((part - 127) / 128) for part in pixels.split(_FRAMES_TOGETHER)]
    return [torch.cat([part[name] for part in parts]) for name in parts[0]]


def _standardize(maps: Tensor) -> Tensor:
    """Mean 0, variance 1 / C per channel, so that C channels together have variance 1."""
    mean, deviation = maps.mean((0, 2, 3), keepdim=True), maps.std((0, 2, 3), keepdim=True)
    return (maps - mean) / ((deviation + _EPS) * math.sqrt(maps.shape[1]))


def _principal_maps(maps: Sequence[Tensor], components: int) -> Tensor:
    """The principal components of maps of several strides at the finest of them.

    A projection of channels and bilinear upsampling can be exchanged, so the coarse maps are
    projected before they are upsampled.

    Args:
        maps: (T, C, s, s) of falling size.
        components: Number of components.

    Returns:
        (T, components, S, S).
    """
    maps = [_standardize(x) for x in maps]
    size = maps[0].shape[-1]
    cells = torch.arange(1, size, _SAMPLE_STEP)
    samples = []
    for x in maps:
        near = cells * x.shape[-1] // size
        sampled = x[:: _SAMPLE_STEP // 2, :, near][..., near]
        samples.append(sampled.permute(0, 2, 3, 1).flatten(0, 2))
    sample = torch.cat(samples, 1)
    _, vectors = torch.linalg.eigh(sample.T @ sample)
    basis = vectors.flip(1)[:, :components]  # eigh sorts by rising variance
    basis = basis * torch.where(basis.sum(0) < 0, -1.0, 1.0)  # the sign is arbitrary
    result = maps[0].new_zeros(len(maps[0]), basis.shape[1], size, size)
    for x, part in zip(maps, basis.split([x.shape[1] for x in maps]), strict=True):
        projected = F.conv2d(x, part.T[:, :, None, None])
        result += F.interpolate(projected, size=(size, size), mode="bilinear", align_corners=False)
    return result
