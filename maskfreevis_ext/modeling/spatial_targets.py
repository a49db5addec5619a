"""What the spatial mask head learns from: motion masks, masks of the objects, or boxes.

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
from maskfreevis_ext.ops.similarity import valid_cells


@dataclass(frozen=True)
class SpatialTargets:
    """Targets of the spatial mask of a batch.

    Attributes:
        masks: (B, T, h, w), or (B, T / V, V, h, w) with views; bool.
        valid: Cells with ground truth, same shape, bool: a frame without any is ignored, and so is
            padding.
        weak: The boxes of the clips that have nothing else.
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

    A clip with ``motion_masks`` learns from these, else one with real masks (``masks`` in its
    target, which are never made of boxes) from the union of its objects, where a frame without an
    object is all background; any other has boxes only.

    Args:
        batched_inputs: B dicts of the mapper; ``valid_area`` (H', W') may say which of their pixels
            are the video's.
        targets: B dicts of ``build_targets``.
        image_size: (H, W) of the padded input.
        stride: Pixels per cell of the targets.
        num_views: V; None: there are none.
        device: Where the targets are made.

    Raises:
        DataError: A motion mask has another size than its frame.
    """
    size = image_size[0] // stride, image_size[1] // stride
    num_frames = len(batched_inputs[0]["image"])
    masks = torch.zeros(len(targets), num_frames, *size, dtype=torch.bool, device=device)
    known = torch.zeros(len(targets), num_frames, dtype=torch.bool, device=device)
    box_frames = torch.zeros_like(known)
    boxes: list[Tensor] = []
    for clip, (sample, target) in enumerate(zip(batched_inputs, targets, strict=True)):
        of_frames = target["boxes"].transpose(0, 1) / stride  # (T, N, 4)
        boxes += list(of_frames)
        if sample.get("motion_masks") is not None:
            for t, mask in enumerate(sample["motion_masks"]):
                if mask is None:
                    continue
                _check_size(sample, t, mask)
                masks[clip, t] = _shrink(mask.to(device)[None], image_size, stride)[0]
                known[clip, t] = True
        elif "masks" in target:
            masks[clip] = _shrink(target["masks"].any(0), image_size, stride)
            known[clip] = True
        else:
            box_frames[clip] = True
    sizes = [tuple(sample["image"][0].shape[-2:]) for sample in batched_inputs]
    inside = valid_cells(sizes, size, stride, device)
    for area, sample in zip(inside, batched_inputs, strict=True):
        if "valid_area" in sample:
            area &= _shrink(sample["valid_area"].to(device)[None], image_size, stride)[0]
    inside = inside[:, None].expand_as(masks)
    valid = inside & known[..., None, None]

    def with_views(x: Tensor) -> Tensor:
        return x if num_views is None else x.unflatten(1, (-1, num_views))

    weak = WeakBoxTargets(boxes, with_views(box_frames), with_views(inside))
    return SpatialTargets(with_views(masks), with_views(valid), weak)


def _shrink(masks: Tensor, image_size: tuple[int, int], stride: int) -> Tensor:
    """Masks (T, H', W'), padded to the input and shrunk; cells that are half covered or more."""
    height, width = masks.shape[-2:]
    padded = F.pad(masks.float(), (0, image_size[1] - width, 0, image_size[0] - height))
    return F.avg_pool2d(padded[:, None], stride)[:, 0] >= 0.5


def _check_size(sample: dict[str, Any], t: int, mask: Tensor) -> None:
    size = tuple(sample["image"][t].shape[-2:])
    if tuple(mask.shape) != size:
        raise DataError(
            f"video {sample.get('video_id')}, frame {sample.get('frame_indices', [])[t : t + 1]}: "
            f"the motion mask has the size {tuple(mask.shape)}, the frame {size}."
        )
