"""What the pixel head looks at: frozen features, colour and motion in the windows of the objects.

N objects, T frames, S x S cells of a window, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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
_LONGEST_SIDE = 960  # pixels of a frame for optical flow; larger ones are reduced
_SAMPLE_STEP = 4  # cells between the samples of the principal components, and frames / 2
_EPS = 1e-3


@dataclass(frozen=True)
class WindowFeatures:
    """Inputs of the pixel head.

    Attributes:
        values: (N, T, D, S, S), float16, standardized.
        lab: Mean Lab colour of each cell, (N, T, 3, S, S), float32.
        bases: How the values of each object were made, to make those of further frames alike.
    """

    values: Tensor
    lab: Tensor
    bases: list[FeatureBasis]


@dataclass(frozen=True)
class Scale:
    """Brings maps to mean 0 and variance 1 / C per channel, so that together they have variance 1.

    Attributes:
        mean: (1, C, 1, 1).
        size: What is divided by, (1, C, 1, 1).
    """

    mean: Tensor
    size: Tensor

    @classmethod
    def of(cls, maps: Tensor) -> Scale:
        """The scale of maps (T, C, s, s)."""
        mean, deviation = maps.mean((0, 2, 3), keepdim=True), maps.std((0, 2, 3), keepdim=True)
        return cls(mean, (deviation + _EPS) * math.sqrt(maps.shape[1]))

    def __call__(self, maps: Tensor) -> Tensor:
        """Scaled maps."""
        return (maps - self.mean) / self.size


@dataclass(frozen=True)
class FeatureBasis:
    """What the features of one object were scaled and projected by.

    Attributes:
        scales: Of the maps of the backbone, then of colour and, where there is one, of motion.
        projection: Principal components, (channels of all maps, components).
        num_coarse: The first of the components, which are those of the coarsest map.
    """

    scales: list[Scale]
    projection: Tensor
    num_coarse: int


def extract_features(
    frames: Sequence[np.ndarray],
    windows: ObjectWindows,
    backbone: nn.Module,
    components: tuple[int, int],
    motion: np.ndarray | None = None,
    bases: Sequence[FeatureBasis] | None = None,
) -> WindowFeatures:
    """Features of the windows of all objects of a clip.

    The maps of the backbone are standardized per channel and object, divided by the square root of
    their number of channels, so that each stride counts alike, brought to stride 4, and reduced to
    their principal components: those of the coarsest map, then those of the others together.

    Args:
        frames: T frames, (H, W, 3) uint8, RGB.
        windows: Windows of the N objects.
        backbone: Takes (RGB - 127) / 128, (B, 3, H, W), and gives named maps, the coarsest last.
        components: Principal components that are kept, of the coarsest map and of the others.
        motion: Motion of the cells against the background, of ``motion_windows``, or None.
        bases: Scales and projections of the objects from other frames; None: from these frames.

    Returns:
        The features; D is the sum of ``components`` + 3, and 6 more with motion.
    """
    values, labs, found = [], [], []
    for index in range(len(windows.boxes)):
        pixels = _crops(frames, windows, index, windows.grid * STRIDE)
        lab = rgb_to_lab(F.avg_pool2d(pixels, STRIDE))
        maps = _run(backbone, pixels)
        further = [lab]
        if motion is not None:
            further.append(torch.from_numpy(motion[index]).permute(0, 3, 1, 2).float())
        basis = bases[index] if bases is not None else _fit_basis(maps, further, components)
        scales = basis.scales[: len(maps)], basis.scales[len(maps) :]
        maps = [scale(x) for scale, x in zip(scales[0], maps, strict=True)]
        parts = [_project(maps, basis.projection)]
        parts += [scale(x) for scale, x in zip(scales[1], further, strict=True)]
        values.append(torch.cat(parts, 1).half())
        labs.append(lab)
        found.append(basis)
    return WindowFeatures(torch.stack(values), torch.stack(labs), found)


def motion_windows(frames: Sequence[np.ndarray], windows: ObjectWindows) -> np.ndarray:
    """Motion against the background in the windows of all objects of a clip.

    It is estimated on frames of at most 960 pixels.

    Args:
        frames: T frames, (H, W, 3) uint8, RGB.
        windows: Windows of the N objects.

    Returns:
        Channels of ``residual_motion``, (N, T, S, S, 6) float32.
    """
    grid = windows.grid
    result = np.empty((*windows.boxes.shape[:2], grid, grid, 6), np.float32)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    factor = _LONGEST_SIDE / max(windows.frame_size)
    if factor < 1:
        height, width = (round(factor * side) for side in windows.frame_size)
        grey = [cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in grey]
        windows = replace(
            windows,
            boxes=factor * windows.boxes,
            places=factor * windows.places,
            frame_size=(height, width),
        )
    for t in range(len(frames)):
        motion = residual_motion(grey, windows.boxes, t)
        for index in range(len(windows.boxes)):
            result[index, t] = windows.crop(motion, index, t, grid)
    return result


def _crops(pictures: Iterable[np.ndarray], windows: ObjectWindows, index: int, side: int) -> Tensor:
    """The windows of one object, (T, C, side, side) float32."""
    crops = [windows.crop(picture, index, t, side) for t, picture in enumerate(pictures)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()


@torch.no_grad()
def _run(backbone: nn.Module, pixels: Tensor) -> list[Tensor]:
    parts = [backbone((part - 127) / 128) for part in pixels.split(_FRAMES_TOGETHER)]
    return [torch.cat([part[name] for part in parts]) for name in parts[0]]


def _fit_basis(
    maps: Sequence[Tensor], further: Sequence[Tensor], components: tuple[int, int]
) -> FeatureBasis:
    """Scales of all maps, and the principal components of those of the backbone.

    Args:
        maps: (T, C, s, s) of falling size.
        further: Other maps (T, C, S, S), which are not projected.
        components: Number of components of the coarsest map, and of the others together.
    """
    scales = [Scale.of(x) for x in maps]
    size = maps[0].shape[-1]
    cells = torch.arange(1, size, _SAMPLE_STEP)
    samples = []
    for scale, x in zip(scales, maps, strict=True):
        near = cells * x.shape[-1] // size
        sampled = scale(x[:: _SAMPLE_STEP // 2, :, near][..., near])
        samples.append(sampled.permute(0, 2, 3, 1).flatten(0, 2))
    coarse = samples[0].new_zeros(0, 0)  # a single map is a fine one
    if len(samples) > 1:
        coarse = _principal_axes(samples.pop(), components[0])
    fine = _principal_axes(torch.cat(samples, 1), components[1])
    projection = torch.block_diag(fine, coarse)  # its rows are the channels of all maps
    num_coarse = coarse.shape[1]
    projection = projection.roll(num_coarse, 1)  # the coarse components come first
    return FeatureBasis([*scales, *map(Scale.of, further)], projection, num_coarse)


def _principal_axes(samples: Tensor, number: int) -> Tensor:
    """The directions of the largest variance of samples (n, C), as (C, number) or less."""
    _, vectors = torch.linalg.eigh(samples.T @ samples)
    axes = vectors.flip(1)[:, :number]  # eigh sorts by rising variance
    return axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # the sign is arbitrary


def _project(maps: Sequence[Tensor], projection: Tensor) -> Tensor:
    """Maps of several strides projected at the finest of them, (T, components, S, S).

    A projection of channels and bilinear upsampling can be exchanged, so the coarse maps are
    projected before they are upsampled.
    """
    size = maps[0].shape[-1]
    result = maps[0].new_zeros(len(maps[0]), projection.shape[1], size, size)
    for x, part in zip(maps, projection.split([x.shape[1] for x in maps]), strict=True):
        projected = F.conv2d(x, part.T[:, :, None, None])
        result += F.interpolate(projected, size=(size, size), mode="bilinear", align_corners=False)
    return result
