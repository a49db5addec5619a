"""Masks of a teacher for objects that have boxes: uncertain masks, each with a confidence.

Shape letters: N objects of several clips in one list, T frames, (h, w) map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class TeacherMasks:
    """What a teacher says of the objects supervised by boxes.

    Attributes:
        maps: Probabilities, (N, T, h, w), in [0, 1].
        confidence: Weight of each mask, (N, T), in [0, 1]; 0 where the teacher has none.
    """

    maps: Tensor
    confidence: Tensor


def join_teachers(
    targets: Sequence[Mapping[str, Tensor]],
    map_size: tuple[int, int],
    dtype: torch.dtype,
) -> TeacherMasks | None:
    """The teacher's masks of all objects of several clips, at the resolution of the logits.

    Args:
        targets: Targets of the clips. ``teacher_masks`` (N, T, H, W), in [0, 1], a multiple of the
            map's size, with ``teacher_confidence`` (N, T); clips without a teacher have neither,
            and of them only the shape of ``boxes`` (N, T, 4) is read.
        map_size: (h, w).
        dtype: Dtype of the result.

    Returns:
        The masks; None if no clip has a teacher.

    Example:
        >>> masks = torch.zeros(1, 1, 4, 8)
        >>> masks[..., :2] = 1
        >>> target = {"teacher_masks": masks, "teacher_confidence": torch.ones(1, 1)}
        >>> join_teachers([target], (1, 2), torch.float32).maps.tolist()
        [[[[0.5, 0.0]]]]
    """
    if not any("teacher_masks" in target for target in targets):
        return None
    maps, confidences = [], []
    for target in targets:
        if "teacher_masks" in target:
            masks = target["teacher_masks"].to(dtype)
            if masks.shape[-2:] != map_size:
                masks = F.avg_pool2d(masks, masks.shape[-1] // map_size[1])
            maps.append(masks)
            confidences.append(target["teacher_confidence"].to(dtype))
        else:
            zeros = target["boxes"].new_zeros(target["boxes"].shape[:2], dtype=dtype)
            maps.append(zeros[..., None, None].expand(-1, -1, *map_size))
            confidences.append(zeros)
    return TeacherMasks(torch.cat(maps), torch.cat(confidences))
