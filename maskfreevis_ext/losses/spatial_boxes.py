"""Supervision of a spatial mask by boxes: each row and column of a box contains foreground.

Shape letters: F frames, (H, W) pixels, K boxes of all frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.ops.reduce import send


def require_shape(name: str, value: Tensor, *expected: Sequence[int]) -> None:
    """Check the shape of a tensor.

    Args:
        name: Name of the tensor in the message.
        value: The tensor.
        expected: Shapes that are allowed.

    Raises:
        ValueError: The shape is none of these; the message gives them and the shape it has.
    """
    if tuple(value.shape) not in [tuple(shape) for shape in expected]:
        shapes = " or ".join(str(tuple(shape)) for shape in expected)
        raise ValueError(f"{name} must have the shape {shapes}, got {tuple(value.shape)}")


def _axis_range(start: Tensor, end: Tensor, length: int) -> Tensor:
    """Pixels of one axis whose centre lies in [start, end), (K, length), bool.

    An interval that overlaps the frame but contains no pixel centre gets the pixel at its middle.
    """
    start, end = start.clamp(0, length), end.clamp(0, length)
    centre = torch.arange(length, device=start.device, dtype=start.dtype) + 0.5
    inside = (centre >= start[:, None]) & (centre < end[:, None])
    middle = ((start + end) / 2).floor().clamp(max=length - 1)
    at_middle = (centre - 0.5) == middle[:, None]
    fallback = at_middle & (end > start)[:, None]
    return torch.where(inside.any(-1, keepdim=True), inside, fallback)


def _stack_boxes(boxes: Sequence[Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    """Filled boxes of all frames, (K, H, W), bool, and the index of each box's frame, (K,)."""
    height, width = logits.shape[-2:]
    if len(boxes) != len(logits):
        raise ValueError(f"boxes has {len(boxes)} entries, but there are {len(logits)} frames")
    for i, box in enumerate(boxes):
        if box.dim() != 2 or box.shape[1] != 4:
            raise ValueError(f"boxes[{i}] must have the shape (n, 4), got {tuple(box.shape)}")
    frame = [i for i, box in enumerate(boxes) for _ in range(len(box))]
    if not frame:
        return (
            torch.zeros(0, height, width, dtype=torch.bool, device=logits.device),
            torch.zeros(0, dtype=torch.long, device=logits.device),
        )
    x0, y0, x1, y1 = torch.cat(list(boxes)).to(logits.device, torch.float32).unbind(-1)
    columns, rows = _axis_range(x0, x1, width), _axis_range(y0, y1, height)
    area = rows[:, :, None] & columns[:, None, :]
    return area, send(torch.tensor(frame), logits.device)


def _mean_cost_of_best(logits: Tensor, inside: Tensor, dim: int) -> Tensor:
    """BCE with target 1 of the largest logit along ``dim`` inside a box, mean over its lines, (K,).

    Equal logits share the gradient, so that a head whose logits are all equal at the start gets
    the same gradient everywhere.
    """
    exists = inside.any(dim)
    best = logits.masked_fill(~inside, -torch.inf).amax(dim)
    cost = torch.where(exists, F.softplus(-torch.where(exists, best, 0.0)), 0.0)
    return cost.sum(-1) / exists.sum(-1).clamp(min=1)


def box_supervision_loss(
    logits: Tensor,
    boxes: Sequence[Tensor],
    box_frames: Tensor,
    inside_valid: Tensor,
    box_negatives: bool = True,
    num_frames: Tensor | float | None = None,
) -> Tensor:
    """Box supervision: each row and column of a box contains foreground, the rest contains none.

    For each frame: BCE with target 1 of the largest logit in each row and in each column of a box,
    averaged over rows and over columns, the means added, averaged over the boxes; plus the mean
    BCE with target 0 outside all boxes. The maxima are the projections of BoxInst (Tian et al.,
    CVPR 2021, arXiv:2012.02310); boxes may overlap.

    Args:
        logits: (F, H, W).
        boxes: F tensors (n, 4), xyxy in pixels; pixel i covers [i, i + 1] and is inside when its
            centre is. A box that meets the frame has at least one pixel.
        box_frames: Frames that count, (F,), bool.
        inside_valid: Pixels that are not padding, (F, H, W), bool.
        box_negatives: Whether pixels outside all boxes are background; not if boxes are missing.
        num_frames: Divisor of the sum over frames; None: the number of ``box_frames``.

    Returns:
        Scalar; 0 with a gradient path if no frame counts.

    Raises:
        ValueError: Shapes disagree.

    Example:
        >>> logits = torch.full((1, 4, 4), -99.0)
        >>> logits[0, :2, :2] = 99.0  # the upper left quarter, which is the box
        >>> frames, valid = torch.tensor([True]), torch.ones(1, 4, 4, dtype=torch.bool)
        >>> loss = box_supervision_loss(logits, [torch.tensor([[0.0, 0, 2, 2]])], frames, valid)
        >>> loss.item() < 1e-6
        True
    """
    if logits.dim() != 3:
        raise ValueError(f"logits must have the shape (F, H, W), got {tuple(logits.shape)}")
    require_shape("inside_valid", inside_valid, logits.shape)
    require_shape("box_frames", box_frames, logits.shape[:1])
    area, frame = _stack_boxes(boxes, logits)
    usable = inside_valid & box_frames[:, None, None]
    logits = torch.where(usable, logits, 0.0)

    inside = area & usable[frame]
    of_frame = logits[frame]  # (K, H, W)
    per_box = _mean_cost_of_best(of_frame, inside, -1) + _mean_cost_of_best(of_frame, inside, -2)
    empty = logits.new_zeros(len(logits))
    num_boxes = empty.index_add(0, frame, inside.any(-1).any(-1).to(logits.dtype))
    per_frame = empty.index_add(0, frame, per_box) / num_boxes.clamp(min=1)
    if box_negatives:
        covered = torch.zeros_like(logits).index_add(0, frame, area.to(logits.dtype)) > 0
        outside = usable & ~covered
        cost = torch.where(outside, F.softplus(logits), 0.0).sum((-2, -1))
        per_frame = per_frame + cost / outside.sum((-2, -1)).clamp(min=1)
    if num_frames is None:
        num_frames = box_frames.sum().clamp(min=1)
    return per_frame.sum() / num_frames
