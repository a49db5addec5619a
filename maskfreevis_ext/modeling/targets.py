"""Targets of a training batch, from the samples of the data mappers.

All steps that depend on the data (which objects appear, padding) run on the CPU. One copy then
moves the targets of the whole batch to the device, so that nobody has to wait for a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.ops.transfer import send_together

SUPERVISIONS = ("box", "mask", "teacher")
#: Names in the target of a teacher's masks and of their confidence.
TEACHER_FIELDS = ("teacher_masks", "teacher_confidence")


def pad_masks(masks: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Extend masks to the size of the padded input, with zeros at the right and at the bottom.

    Args:
        masks: (..., H', W'), any dtype.
        image_size: (H, W), at least (H', W').

    Returns:
        (..., H, W); ``masks`` itself where it has this size already.
    """
    height, width = masks.shape[-2:]
    if (height, width) == tuple(image_size):
        return masks
    padded = masks.new_zeros(*masks.shape[:-2], *image_size)
    padded[..., :height, :width] = masks
    return padded


def _stack_instances(
    instances: list[Any], image_size: tuple[int, int], supervision: str, where: str
) -> dict[str, Tensor]:
    """Turn the T ``Instances`` of a clip into arrays of whole tracks, without empty tracks."""
    counts = [len(frame) for frame in instances]
    if len(set(counts)) != 1:
        raise DataError(f"{where}: every frame must have a row for each object, got {counts} rows.")
    ids = torch.stack([frame.gt_ids.cpu() for frame in instances], dim=1)
    boxes = torch.stack([frame.gt_boxes.tensor.cpu() for frame in instances], dim=1)
    labels = torch.stack([frame.gt_classes.cpu() for frame in instances], dim=1)
    is_present = ids >= 0
    keep = is_present.any(dim=1)
    tracks = {
        # The row of an object may have the class -1 in frames without it: the largest value is
        # the class in a frame that shows the object.
        "labels": labels.amax(dim=1)[keep],
        "boxes": (boxes * is_present[..., None])[keep],
    }
    if supervision != "box" and all(frame.has("gt_masks") for frame in instances):
        frames = [pad_masks(frame.gt_masks.tensor.cpu().bool(), image_size) for frame in instances]
        masks = torch.stack(frames, dim=1)
        masks = (masks & is_present[:, :, None, None])[keep]
        if supervision == "mask":
            tracks["masks"] = masks
        else:
            confidence = torch.stack([frame.gt_confidence.cpu() for frame in instances], dim=1)
            tracks["teacher_masks"] = masks
            tracks["teacher_confidence"] = (confidence * is_present)[keep]
    return tracks


def _clip_target(sample: dict[str, Any], image_size: tuple[int, int]) -> dict[str, Tensor]:
    """Target of one clip, on the CPU."""
    where = f"video {sample.get('video_id')!r}, frames {sample.get('frame_indices')}"
    supervision = sample.get("supervision")
    if supervision not in SUPERVISIONS:
        raise DataError(f"{where}: supervision must be one of {SUPERVISIONS}, got {supervision!r}.")
    if "tracks" in sample:
        tracks = sample["tracks"]
    elif "instances" in sample:
        tracks = _stack_instances(sample["instances"], image_size, supervision, where)
    else:
        raise DataError(
            f"{where}: a training sample needs 'tracks' or 'instances', got the keys"
            f" {sorted(sample)}. Build the mapper with is_train=True."
        )
    target = {
        "labels": tracks["labels"].long(),
        "boxes": tracks["boxes"].float(),
    }
    if supervision == "mask":
        if "masks" not in tracks:
            raise DataError(
                f"{where}: supervision is 'mask', but the sample has no masks of its objects"
                " ('masks' in 'tracks', or gt_masks in 'instances'). Use box supervision, or a"
                " mapper that adds masks."
            )
        target["masks"] = pad_masks(tracks["masks"], image_size)
    if supervision == "teacher":
        missing = [name for name in TEACHER_FIELDS if name not in tracks]
        if missing:
            raise DataError(
                f"{where}: supervision is 'teacher', but 'tracks' has no {' and '.join(missing)}."
                " Use box supervision, or a mapper that adds the teacher's masks."
            )
        target["teacher_masks"] = pad_masks(tracks["teacher_masks"], image_size)
        target["teacher_confidence"] = tracks["teacher_confidence"].float()
    return target


def build_targets(
    batched_inputs: list[dict[str, Any]], image_size: tuple[int, int], device: torch.device
) -> list[dict[str, Tensor]]:
    """Build the targets of a batch of clips.

    Args:
        batched_inputs: B samples, each with ``supervision`` ("box", "mask" or "teacher") and its
            objects in one of two forms. ``tracks``: a dict of tensors on the CPU, ``labels`` (N,),
            ``boxes`` (N, T, 4) xyxy pixels, ``masks`` (N, T, H', W') bool with mask supervision,
            and with a teacher ``teacher_masks`` of the same shape, in [0, 1], and
            ``teacher_confidence`` (N, T), in [0, 1]; every object appears in some frame, and boxes,
            masks and confidence are zero where it is absent. Or, without
            ``tracks``, ``instances``: T Detectron2 ``Instances`` of the same N rows with
            ``gt_classes``, ``gt_ids`` (-1 where the object is absent), ``gt_boxes``,
            ``gt_masks`` and, with a teacher, ``gt_confidence``; objects that appear in no frame
            are left out. Neither is changed.
        image_size: (H, W) of the padded input, pixels.
        device: Device of the targets.

    Returns:
        B dicts with ``labels`` (N,) int64, ``boxes`` (N, T, 4) float32 xyxy pixels of the padded
        input with zeros where the object is absent, and, if and only if the clip has mask
        supervision, ``masks`` (N, T, H, W) bool; with a teacher ``teacher_masks`` (N, T, H, W)
        and ``teacher_confidence`` (N, T) float32.

    Raises:
        DataError: ``supervision`` is none of ``SUPERVISIONS``, a sample has neither ``tracks`` nor
            ``instances``, the frames have different numbers of rows, or masks are missing where
            the supervision is "mask" or "teacher".
    """
    targets = [_clip_target(sample, image_size) for sample in batched_inputs]
    moved = iter(send_together([x for target in targets for x in target.values()], device))
    return [{key: next(moved) for key in target} for target in targets]
