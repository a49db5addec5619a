"""Clips with moving objects, made from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.literal.criterion import box_maps, similarities
from benchmarks.options import Options
from maskfreevis_ext.ops.boxes import masks_to_boxes

STRIDE = 4  # pixels per cell of the masks
SIZE_DIVISIBILITY = 32
SENSOR_NOISE = 2.0  # standard deviation of a pixel, of 255


@dataclass
class Scene:
    """Clips with moving objects.

    Attributes:
        images: Frames without padding, (B, T, 3, H', W'), uint8.
        frames: Frames padded with zeros, (B, T, 3, H, W), float32 in [0, 255].
        masks: (B, N, T, H, W), bool.
        targets: B dicts with ``labels``, ``ids`` and ``boxes``, as the criterion
            takes them.
    """

    images: Tensor
    frames: Tensor
    masks: Tensor
    targets: list[dict[str, Tensor]]

    @property
    def frame_sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of each clip without padding."""
        height, width = self.images.shape[-2:]
        return [(height, width)] * len(self.images)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels, with padding."""
        return self.frames.shape[-2], self.frames.shape[-1]

    @property
    def literal_targets(self) -> list[dict[str, Tensor]]:
        """The same targets with masks, from which the literal criterion makes filled boxes."""
        return [
            {**target, "masks": masks}
            for target, masks in zip(self.targets, self.masks, strict=True)
        ]


def smooth_noise(channels: int, size: Sequence[int], cell: Sequence[float]) -> Tensor:
    """Noise (channels, *size) that changes over about ``cell`` positions along each axis."""
    grid = [max(math.ceil(length / step), 1) + 2 for length, step in zip(size, cell, strict=True)]
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    padded = [
        math.ceil(length * count / (count - 2)) for length, count in zip(size, grid, strict=True)
    ]
    noise = F.interpolate(torch.randn(1, channels, *grid), padded, mode=mode, align_corners=False)
    for axis, length in enumerate(size, start=2):
        noise = noise.narrow(axis, 0, length)
    return noise[0]


def texture(height: int, width: int, contrast: float) -> Tensor:
    """A colour with shading and fine structure, (3, height, width), values around 60 ... 190."""
    color = 60 + 130 * torch.rand(3, 1, 1)
    shading = contrast * smooth_noise(3, (height, width), (90, 90))
    return color + shading + 0.3 * contrast * smooth_noise(1, (height, width), (14, 14))


def object_masks(options: Options) -> Tensor:
    """Rectangles and ellipses of varied size that move, (N, T, H', W') bool.

    With three objects or more the last one is absent from the last frame.
    """
    y = (torch.arange(options.height) + 0.5)[:, None] / options.height
    x = (torch.arange(options.width) + 0.5)[None] / options.width
    masks = torch.zeros(
        options.objects, options.frames, options.height, options.width, dtype=torch.bool
    )
    for n in range(options.objects):
        # half sizes from 0.3 to 0.06 of the frame, the small ones in front
        scale = (options.objects - n - torch.rand(1)) / options.objects
        radius_y, radius_x = (0.06 + 0.24 * scale * (0.7 + 0.3 * torch.rand(2))).tolist()
        center_y, center_x = (0.25 + 0.5 * torch.rand(2)).tolist()
        speed_y, speed_x = (0.02 * torch.randn(2)).clamp(-0.03, 0.03).tolist()
        for t in range(options.frames):
            dy = (y - center_y - speed_y * t) / radius_y
            dx = (x - center_x - speed_x * t) / radius_x
            inside = (dy.abs() <= 1) & (dx.abs() <= 1) if n % 2 else dy.square() + dx.square() <= 1
            masks[n, t] = inside
    if options.objects >= 3:
        masks[-1, -1] = False
    return masks


def paint_clip(masks: Tensor) -> Tensor:
    """Textured objects before a slowly panning background, (T, 3, H', W') uint8."""
    num_frames, height, width = masks.shape[1:]
    pan_y, pan_x = 2, 3  # pixels per frame; no whole cells, so that patches do not repeat exactly
    background = texture(height + pan_y * num_frames, width + pan_x * num_frames, 16.0)
    frames = torch.stack(
        [background[:, pan_y * t :, pan_x * t :][:, :height, :width] for t in range(num_frames)]
    )
    for tube in masks:
        surface = texture(height, width, 12.0)
        first = None
        for t, mask in enumerate(tube):
            if not mask.any():
                continue
            center = mask.nonzero().float().mean(0).round().int()
            first = center if first is None else first
            moved = surface.roll((center - first).tolist(), dims=(1, 2))
            frames[t] = torch.where(mask, moved, frames[t])
    # brighter than the padding, which is black
    return (frames + SENSOR_NOISE * torch.randn_like(frames)).clamp(16, 255).round().to(torch.uint8)


def make_scene(options: Options) -> Scene:
    """A batch of clips that depends only on the options and their seed."""
    torch.manual_seed(options.seed)
    padding = (0, -options.width % SIZE_DIVISIBILITY, 0, -options.height % SIZE_DIVISIBILITY)
    masks = [object_masks(options) for _ in range(options.batch)]
    images = torch.stack([paint_clip(of_clip) for of_clip in masks]).to(options.device)
    padded = F.pad(torch.stack(masks), padding).to(options.device)
    is_present = padded.flatten(3).any(-1)
    targets = []
    for of_clip, present in zip(padded, is_present, strict=True):
        ids = torch.arange(len(of_clip), device=options.device)[:, None].where(present, -1)
        targets.append(
            {
                "labels": torch.randint(0, options.classes, (len(of_clip),)).to(options.device),
                "ids": ids,
                "boxes": masks_to_boxes(of_clip),
            }
        )
    return Scene(images, F.pad(images.float(), padding), padded, targets)


def pass_rates(scene: Scene, pairs: list[tuple[int, int]]) -> dict[str, float]:
    """How many neighbours and match candidates inside the boxes pass the reference's thresholds.

    Returns:
        ``edges`` and, with frame pairs, ``matches``: shares in [0, 1]. ``box_area``: share of the
        padded frame that the box of an object covers, mean over objects and frames.
    """
    spatial, temporal = similarities(scene.frames, pairs)
    inside = F.avg_pool2d(box_maps(scene.masks).amax(1), STRIDE) >= 0.5  # (B, T, h, w)
    edges = (spatial >= 0.3).float().mean(2)
    rates = {"edges": float(edges[inside].mean())}
    kept = []
    for (_, second), similarity in zip(pairs, temporal, strict=True):
        values = similarity.topk(min(5, similarity.shape[1]), dim=1).values
        share = (values >= 0.05).float().sum(1) / similarity.shape[1]
        kept.append(share[inside[:, second]])
    if kept:
        rates["matches"] = float(torch.cat(kept).mean())
    rates["box_area"] = float(box_maps(scene.masks).mean())
    return rates


def note_pass_rates(rates: dict[str, float]) -> str:
    """The ``pass_rates`` as a sentence."""
    shares = [f"{rates[name]:.1%} of the {name}" for name in ("edges", "matches") if name in rates]
    return (
        f"inside the boxes {' and '.join(shares)} that are possible pass the thresholds; "
        f"a box covers {rates['box_area']:.1%} of the frame on average"
    )
