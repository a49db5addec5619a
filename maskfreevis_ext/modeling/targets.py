"""What the mappers return becomes what the criterion takes. The one place that builds targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskfreevis_ext.errors import DataError

SUPERVISIONS = ("box", "mask")


def _pad_masks(masks: list[Tensor], image_size: tuple[int, int], device: torch.device) -> Tensor:
    """T tensors (n, H', W') become (n, T, H, W), bool, with zeros right and below."""
    padded = torch.zeros(
        (masks[0].shape[0], len(masks), *image_size), dtype=torch.bool, device=device
    )
    for t, mask in enumerate(masks):
        padded[:, t, : mask.shape[-2], : mask.shape[-1]] = mask.to(device)
    return padded


def build_targets(
    batched_inputs: list[dict[str, Any]], image_size: tuple[int, int], device: torch.device
) -> list[dict[str, Tensor]]:
    """Build the targets of a batch of clips.

    Args:
        batched_inputs: B dicts of the mapper, with ``instances`` (T of them, with equal rows) and
            ``supervision``.
        image_size: (H, W) of the padded input.
        device: Where the targets are made.

    Returns:
        B dicts with ``labels`` (N,) int64, ``ids`` (N, T) int64 with -1 where the object is
        absent, ``boxes`` (N, T, 4) float32 xyxy pixels of the padded input with zeros where it is
        absent, ``has_mask`` (N,) bool, and ``masks`` (N, T, H, W) bool if the clip has mask
        supervision. Objects that appear in no frame are left out. The input is not changed.

    Raises:
        DataError: ``supervision`` is neither "box" nor "mask", the frames have different numbers of
            rows, or masks are missing where they are promised.
    """
    targets = []
    for sample in batched_inputs:
        where = f"video {sample.get('video_id')!r}, frames {sample.get('frame_indices')}"
        supervision = sample.get("supervision")
        if supervision not in SUPERVISIONS:
            raise DataError(f"{where}: supervision is one of {SUPERVISIONS}, got {supervision!r}")
        instances = sample["instances"]
        if len({len(frame) for frame in instances}) != 1:
            counts = [len(frame) for frame in instances]
            raise DataError(f"{where}: every frame has a row for each object, got {counts} rows")
        ids = torch.stack([frame.gt_ids.to(device) for frame in instances], dim=1).long()
        boxes = torch.stack([frame.gt_boxes.tensor.to(device) for frame in instances], dim=1)
        labels = torch.stack([frame.gt_classes.to(device) for frame in instances], dim=1)
        is_present = ids >= 0
        keep = is_present.any(dim=1)
        # rows of absent frames may carry a class of -1; the largest is that of a frame with the
        # object
        target = {
            "labels": labels.amax(dim=1).long()[keep],
            "ids": ids[keep],
            "boxes": (boxes.float() * is_present[..., None])[keep],
            "has_mask": torch.full((int(keep.sum()),), supervision == "mask", device=device),
        }
        if supervision == "mask":
            if not all(frame.has("gt_masks") for frame in instances):
                raise DataError(f"{where}: supervision is 'mask', but instances have no gt_masks")
            masks = _pad_masks([frame.gt_masks.tensor for frame in instances], image_size, device)
            target["masks"] = (masks & is_present[:, :, None, None])[keep]
        targets.append(target)
    return targets
