"""Masks, boxes and their projections on the two axes.

Boxes are (x0, y0, x1, y1) in pixels of the padded input, pixel i covering [i, i + 1]: the tight
box of a mask whose columns are 3 ... 5 has x0 = 3 and x1 = 6. A box of an absent object is all
zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CACHED_CELLS = 2**19  # cells of float32 maps that a core's cache holds


def mask_projections(mask_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Largest logit of each row and of each column.

    The sigmoid is monotonic, so these are also the logits of the projections of the probabilities.

    Args:
        mask_logits: (..., h, w).

    Returns:
        Rows (..., h) and columns (..., w). The gradient goes to one position where several are
        equal.
    """
    if torch.is_grad_enabled() and mask_logits.requires_grad:
        return mask_logits.max(dim=-1).values, mask_logits.max(dim=-2).values
    # Both axes of a few maps at a time, so that the second pass reads from the cache; amax takes a
    # fifth of the time of max, which looks for the index too.
    lead, (height, width) = mask_logits.shape[:-2], mask_logits.shape[-2:]
    maps = mask_logits.flatten(0, -3) if lead else mask_logits[None]
    rows, cols = maps.new_empty(len(maps), height), maps.new_empty(len(maps), width)
    step = max(_CACHED_CELLS // max(height * width, 1), 1) if maps.device.type == "cpu" else None
    for part in (slice(i, i + step) for i in range(0, len(maps), step)) if step else [slice(None)]:
        torch.amax(maps[part], dim=-1, out=rows[part])
        torch.amax(maps[part], dim=-2, out=cols[part])
    return rows.view(*lead, height), cols.view(*lead, width)


def _extent(present: Tensor) -> tuple[Tensor, Tensor]:
    """First True and one past the last True along the last axis; 0 and 0 where there is none."""
    length = present.shape[-1]
    position = torch.arange(length, device=present.device)
    last = torch.where(present, position + 1, 0).amax(-1)
    first = torch.where(present, position, length).amin(-1)
    return torch.where(last > 0, first, 0), last


def boxes_from_projections(rows: Tensor, cols: Tensor) -> Tensor:
    """Tight boxes of {logit > 0} from the projections of logits.

    Args:
        rows: Largest logit of each row, (..., h).
        cols: Largest logit of each column, (..., w).

    Returns:
        (..., 4), int64, in cells; zeros where no logit is positive.
    """
    y0, y1 = _extent(rows > 0)
    x0, x1 = _extent(cols > 0)
    return torch.stack((x0, y0, x1, y1), dim=-1)


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Tight boxes of masks.

    Args:
        masks: (..., H, W), bool.

    Returns:
        (..., 4), float32 pixels; zeros for an empty mask.
    """
    y0, y1 = _extent(masks.any(-1))
    x0, x1 = _extent(masks.any(-2))
    return torch.stack((x0, y0, x1, y1), dim=-1).float()


def _coverage(start: Tensor, end: Tensor, length: int, stride: int) -> Tensor:
    """Profile of a box on one axis of the map, values 0, 1/2 or 1, (..., length)."""
    low, high = torch.floor(start + 0.5), torch.floor(end + 0.5)
    high = torch.where((end > start) & (high <= low), low + 1, high)
    center = torch.arange(length, device=start.device) * stride + stride // 2
    inside = [
        (pixel >= low[..., None]) & (pixel < high[..., None]) for pixel in (center - 1, center)
    ]
    return (inside[0].to(start.dtype) + inside[1].to(start.dtype)) / 2


def box_profiles(boxes: Tensor, map_size: tuple[int, int], stride: int) -> tuple[Tensor, Tensor]:
    """Filled boxes at the resolution of the masks, as a row profile and a column profile.

    A filled box is the outer product of two profiles. Shrinking the filled box bilinearly
    (half-pixel centres, no antialiasing) by an even factor averages the central 2 x 2 pixels of
    each cell, which again is the product of the shrunk profiles; no map has to be made at full
    size. Edges are rounded to whole pixels, and a box thinner than a pixel keeps one.

    Args:
        boxes: (..., 4), float.
        map_size: (h, w) in cells.
        stride: Pixels per cell, even.

    Returns:
        Rows (..., h) and columns (..., w) with values 0, 1/2, 1; dtype of ``boxes``.

    Raises:
        ValueError: ``stride`` is odd.
    """
    if stride % 2:
        raise ValueError(f"the stride is even, got {stride}")
    x0, y0, x1, y1 = boxes.unbind(-1)
    return _coverage(y0, y1, map_size[0], stride), _coverage(x0, x1, map_size[1], stride)


def _ramp_knots(start: Tensor, end: Tensor, width: float) -> tuple[Tensor, tuple[int, ...]]:
    """Knots k and signs s with which sum s * max(x - k, 0) / width is the interpolated box."""
    half = width / 2
    knots = torch.stack((start - half, start + half, end - half, end + half), dim=-1)
    return knots, (1, -1, -1, 1)


def _antiderivatives(x: Tensor, knots: Tensor, signs: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """First and second antiderivative at x of sum s * max(x - k, 0); ``knots`` is (..., 4)."""
    once, twice = 0.0, 0.0
    for index, sign in enumerate(signs):
        ramp = (x - knots[..., index]).clamp(min=0)
        square = ramp * ramp
        once = once + sign * square / 2
        twice = twice + sign * square * ramp / 6
    return once, twice


def _interpolated_area(start: Tensor, end: Tensor, width: float, length: float) -> Tensor:
    """Integral over [0, length] of a box [start, end] whose edges are ramps of ``width`` pixels."""
    knots, signs = _ramp_knots(start, end, width)
    full, _ = _antiderivatives(torch.full_like(start, length), knots, signs)
    zero, _ = _antiderivatives(torch.zeros_like(start), knots, signs)
    return (full - zero) / width


def _interpolated_overlap(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], width: float, length: float
) -> Tensor:
    """Integral over [0, length] of the product of two such boxes; the second has ramps of 1 pixel.

    Integration by parts: each ramp max(x - k, 0) of the first box meets the antiderivatives of the
    second.
    """
    knots, signs = _ramp_knots(*first, width)
    others, other_signs = _ramp_knots(*second, 1.0)
    end = torch.full_like(others[..., 0], length)
    end_once, end_twice = _antiderivatives(end, others, other_signs)
    total = 0.0
    for index, sign in enumerate(signs):
        knot = knots[..., index]
        start = knot.clamp(0, length)
        once, twice = _antiderivatives(start, others, other_signs)
        part = (length - knot) * end_once - (start - knot) * once - (end_twice - twice)
        total = total + sign * part
    return total / width


def box_dice_cost(
    pred_boxes: Tensor,
    target_boxes: Tensor,
    image_size: tuple[int, int],
    stride: int,
    num_points: int,
) -> Tensor:
    """Dice cost of predicted and given box tubes, the limit of the point-sampled estimate.

    The reference draws ``num_points`` uniform points a frame, samples the filled predicted box (a
    map at ``stride``) and the filled given box (a map of pixels) bilinearly with zeros outside,
    and takes 1 - (2 <a, g> + 1) / (sum a + sum g + 1) over the points of all frames. The
    expectations of the three sums are integrals of products of trapezoids, one axis at a time, and
    have a closed form.

    Args:
        pred_boxes: (..., Q, T, 4) in cells, integer, as ``boxes_from_projections`` gives them.
        target_boxes: (N, T, 4) in pixels.
        image_size: (H, W) of the padded input in pixels.
        stride: Pixels per cell.
        num_points: P; it only sets the size of the smoothing constant 1.

    Returns:
        (..., Q, N), float32, values in [0, 1).
    """
    # float64: third powers of pixel coordinates are subtracted from each other
    pred = pred_boxes.double() * stride
    target = torch.floor(target_boxes.double() + 0.5)
    overlap, pred_area, target_area = 1.0, 1.0, 1.0
    for axis, length in ((0, float(image_size[1])), (1, float(image_size[0]))):
        first = pred[..., axis], pred[..., axis + 2]  # (..., Q, T)
        second = target[..., axis], target[..., axis + 2]  # (N, T)
        wide = tuple(edge.unsqueeze(-2) for edge in first)  # (..., Q, 1, T)
        overlap = overlap * _interpolated_overlap(wide, second, float(stride), length) / length
        pred_area = pred_area * _interpolated_area(*first, float(stride), length) / length
        target_area = target_area * _interpolated_area(*second, 1.0, length) / length
    overlap = num_points * overlap.sum(-1)
    total = num_points * (pred_area.sum(-1)[..., :, None] + target_area.sum(-1))
    return (1 - (2 * overlap + 1) / (total + 1)).float()
