"""Targets of the spatial mask head: motion masks, masks of the objects, or boxes.

Shape letters: B clips, T frames of a clip (of all V views), (H, W) padded input, (h, w) targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.losses.spatial import WeakBoxTargets
from maskfreevis_ext.modeling.targets import pad_masks
from maskfreevis_ext.ops.similarity import valid_cells
from maskfreevis_ext.ops.transfer import send_together


@dataclass(frozen=True)
class SpatialTargets:
    """Targets of the spatial mask of a batch.

    Attributes:
        masks: (B, T, h, w), or (B, T / V, V, h, w) with views; bool.
        valid: Same shape, bool: True for cells with ground truth. False in padding and in frames
            without ground truth, which the losses ignore.
        weak: Box targets of the clips that have neither motion masks nor masks of their objects.
    """

    masks: Tensor
    valid: Tensor
    weak: WeakBoxTargets


def build_spatial_targets(
    batched_inputs: Sequence[dict[str, Any]],
    targets: Sequence[dict[str, Tensor]],
    image_size: tuple[int, int],
    stride: int,
    num_views: int | None,
    device: torch.device,
) -> SpatialTargets:
    """Build the targets of a batch of clips.

    A clip with ``motion_masks`` is supervised by them. A clip without them but with masks of its
    objects (``masks`` in its target) is supervised by the union of these masks; a frame without
    objects is then background everywhere. Any other clip has only its boxes.

    Args:
        batched_inputs: B samples of the mapper. ``motion_masks``: T masks (H', W') bool on the CPU,
            None for a frame without one. ``valid_area``: (H', W') bool on the CPU, True for pixels
            that come from the video; without it all do.
        targets: B dicts of ``build_targets``, on ``device``.
        image_size: (H, W) of the padded input.
        stride: Pixels per cell of the targets.
        num_views: V; None: there are none.
        device: Device of the targets.

    Raises:
        DataError: A motion mask has another size than its frame.
    """
    size = image_size[0] // stride, image_size[1] // stride
    motion = _motion_masks(batched_inputs, image_size)
    known, box_frames = _frame_sources(batched_inputs, targets, motion)
    areas = {
        clip: pad_masks(sample["valid_area"], image_size)
        for clip, sample in enumerate(batched_inputs)
        if "valid_area" in sample
    }
    moved = send_together([known, box_frames, *motion.values(), *areas.values()], device)
    known, box_frames = moved[:2]
    full_size = iter(moved[2:])

    masks = torch.zeros(*known.shape, *size, dtype=torch.bool, device=device)
    for clip, t in motion:
        masks[clip, t] = _shrink(next(full_size)[None], stride)[0]
    for clip, (sample, target) in enumerate(zip(batched_inputs, targets, strict=True)):
        if sample.get("motion_masks") is None and "masks" in target:
            masks[clip] = _shrink(target["masks"].any(0), stride)
    sizes = [tuple(sample["image"][0].shape[-2:]) for sample in batched_inputs]
    inside = valid_cells(sizes, size, stride, device)
    for clip in areas:
        inside[clip] &= _shrink(next(full_size)[None], stride)[0]
    inside = inside[:, None].expand_as(masks)
    valid = inside & known[..., None, None]

    def with_views(x: Tensor) -> Tensor:
        return x if num_views is None else x.unflatten(1, (-1, num_views))

    boxes = [frame / stride for target in targets for frame in target["boxes"].unbind(1)]
    weak = WeakBoxTargets(boxes, with_views(box_frames), with_views(inside))
    return SpatialTargets(with_views(masks), with_views(valid), weak)


def _motion_masks(
    batched_inputs: Sequence[dict[str, Any]], image_size: tuple[int, int]
) -> dict[tuple[int, int], Tensor]:
    """Motion masks (H, W) bool of a batch on the CPU, padded to the input, by (clip, frame)."""
    found = {}
    for clip, sample in enumerate(batched_inputs):
        for t, mask in enumerate(sample.get("motion_masks") or ()):
            if mask is not None:
                _check_size(sample, t, mask)
                found[clip, t] = pad_masks(mask, image_size)
    return found


def _frame_sources(
    batched_inputs: Sequence[dict[str, Any]],
    targets: Sequence[dict[str, Tensor]],
    motion: dict[tuple[int, int], Tensor],
) -> tuple[Tensor, Tensor]:
    """Which frames have masks, and which have boxes only: each (B, T) bool on the CPU."""
    num_frames = len(batched_inputs[0]["image"])
    known = torch.zeros(len(targets), num_frames, dtype=torch.bool)
    box_frames = torch.zeros_like(known)
    for clip, t in motion:
        known[clip, t] = True
    for clip, (sample, target) in enumerate(zip(batched_inputs, targets, strict=True)):
        if sample.get("motion_masks") is None:
            known[clip] = "masks" in target
            box_frames[clip] = "masks" not in target
    return known, box_frames


def _shrink(masks: Tensor, stride: int) -> Tensor:
    """Masks (T, H, W) of the padded input as cells (T, h, w): True where half or more is True."""
    return F.avg_pool2d(masks.float()[:, None], stride)[:, 0] >= 0.5


def _check_size(sample: dict[str, Any], t: int, mask: Tensor) -> None:
    size = tuple(sample["image"][t].shape[-2:])
    if tuple(mask.shape) != size:
        raise DataError(
            f"video {sample.get('video_id')}, frame {sample.get('frame_indices', [])[t : t + 1]}: "
            f"the motion mask has the size {tuple(mask.shape)}, expected that of the frame, {size}."
            " Apply the same transforms to frames and motion masks."
        )
