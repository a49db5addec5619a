"""Masks, boxes and their projections on the two axes.

Boxes are (x0, y0, x1, y1) in pixels of the padded input, pixel i covering [i, i + 1]: the tight
box of a mask whose columns are 3 ... 5 has x0 = 3 and x1 = 6. A box of an absent object is all
zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK_CELLS = 2**21  # cells of float32 maps that fit into the last-level cache


def mask_projections(
    mask_logits: Tensor, out: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Largest logit of each row and of each column.

    The sigmoid is monotonic, so these are also the logits of the projections of the probabilities.

    Args:
        mask_logits: (..., h, w).
        out: Contiguous tensors for the rows and the columns; only without a gradient.

    Returns:
        Rows (..., h) and columns (..., w). Where several logits are the largest, only one of them
        gets the gradient.

    Example:
        >>> rows, cols = mask_projections(torch.tensor([[1.0, 2.0, 3.0], [6.0, 5.0, 4.0]]))
        >>> rows.tolist(), cols.tolist()
        ([3.0, 6.0], [6.0, 5.0, 4.0])
    """
    if torch.is_grad_enabled() and mask_logits.requires_grad:
        return mask_logits.max(dim=-1).values, mask_logits.max(dim=-2).values
    # Both axes of a few maps at a time, so that the second pass reads from the cache. amax takes a
    # fifth of the time of max, which also finds the index.
    lead, (height, width) = mask_logits.shape[:-2], mask_logits.shape[-2:]
    if out is None:
        out = mask_logits.new_empty(*lead, height), mask_logits.new_empty(*lead, width)
    maps = mask_logits.reshape(-1, height, width)
    rows, cols = out[0].view(-1, height), out[1].view(-1, width)
    step = max(len(maps), 1)
    if maps.device.type == "cpu":
        step = max(_BLOCK_CELLS // max(height * width, 1), 1)
    for start in range(0, len(maps), step):
        part = slice(start, start + step)
        torch.amax(maps[part], dim=-2, out=cols[part])
        torch.amax(maps[part], dim=-1, out=rows[part])
    return out


def _extent(present: Tensor) -> tuple[Tensor, Tensor]:
    """First True and one past the last True along the last axis; 0 and 0 where there is none."""
    length = present.shape[-1]
    position = torch.arange(length, device=present.device, dtype=torch.int32)
    last = (present * (position + 1)).amax(-1)
    from_end = (present * (length - position)).amax(-1)
    return torch.where(last > 0, length - from_end, 0), last


def boxes_from_projections(rows: Tensor, cols: Tensor) -> Tensor:
    """Tight boxes of {logit > 0} from the projections of logits.

    Args:
        rows: Largest logit of each row, (..., h).
        cols: Largest logit of each column, (..., w).

    Returns:
        (..., 4), int64, in cells; zeros where no logit is positive.

    Example:
        >>> rows, cols = torch.tensor([-1.0, 2.0, 3.0]), torch.tensor([4.0, -1.0])
        >>> boxes_from_projections(rows, cols).tolist()
        [0, 1, 1, 3]
    """
    y0, y1 = _extent(rows > 0)
    x0, x1 = _extent(cols > 0)
    return torch.stack((x0, y0, x1, y1), dim=-1).long()


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Tight boxes of masks.

    Args:
        masks: (..., H, W), bool.

    Returns:
        (..., 4), float32 pixels; zeros for an empty mask.

    Example:
        >>> mask = torch.zeros(4, 6, dtype=torch.bool)
        >>> mask[1:3, 2:5] = True
        >>> masks_to_boxes(mask).tolist()
        [2.0, 1.0, 5.0, 3.0]
    """
    y0, y1 = _extent(masks.any(-1))
    x0, x1 = _extent(masks.any(-2))
    return torch.stack((x0, y0, x1, y1), dim=-1).float()


def _coverage(start: Tensor, end: Tensor, length: int, stride: int) -> Tensor:
    """Coverage of the cells of one axis by a box, values 0, 1/2 or 1, (..., length)."""
    low, high = torch.floor(start + 0.5), torch.floor(end + 0.5)
    high = torch.where((end > start) & (high <= low), low + 1, high)
    center = torch.arange(length, device=start.device) * stride + stride // 2
    inside = [
        (pixel >= low[..., None]) & (pixel < high[..., None]) for pixel in (center - 1, center)
    ]
    return (inside[0].to(start.dtype) + inside[1].to(start.dtype)) / 2


def box_profiles(boxes: Tensor, map_size: tuple[int, int], stride: int) -> tuple[Tensor, Tensor]:
    """Filled boxes at the resolution of the masks, as a row profile and a column profile.

    A filled box is the outer product of two profiles. Bilinear resizing (half-pixel centres, no
    antialiasing) by an even factor averages the central 2 x 2 pixels of each cell, and the result
    is the product of the resized profiles; so no full-size map is needed. Edges are rounded to
    whole pixels, and a box thinner than a pixel covers one pixel.

    Args:
        boxes: (..., 4), float.
        map_size: (h, w) in cells.
        stride: Pixels per cell, even.

    Returns:
        Rows (..., h) and columns (..., w) with values 0, 1/2, 1; dtype of ``boxes``.

    Raises:
        ValueError: ``stride`` is odd.

    Example:
        >>> box = torch.tensor([4.0, 2.0, 12.0, 8.0])
        >>> rows, cols = box_profiles(box, map_size=(2, 4), stride=4)
        >>> rows.tolist(), cols.tolist()
        ([0.5, 1.0], [0.0, 1.0, 1.0, 0.0])
    """
    if stride % 2:
        raise ValueError(f"the stride is even, got {stride}")
    x0, y0, x1, y1 = boxes.unbind(-1)
    return _coverage(y0, y1, map_size[0], stride), _coverage(x0, x1, map_size[1], stride)


def _antiderivatives(x: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """First and second antiderivative at x of a box [start, end] with edges 1 pixel wide."""
    once = twice = start.new_zeros(())
    for knot, sign in ((start - 0.5, 1), (start + 0.5, -1), (end - 0.5, -1), (end + 0.5, 1)):
        ramp = (x - knot).clamp(min=0)
        square = ramp * ramp
        once = once + sign * square / 2
        twice = twice + sign * square * ramp / 6
    return once, twice


def _edge_overlaps(
    start: Tensor, end: Tensor, stride: int, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrals of rising edges, of rising edge times given box, and of the given box, on one axis.

    The rising edge before cell e is a ramp from 0 to 1, ``stride`` pixels wide, around pixel e *
    stride. A box of cells [e, f) is the edge at e minus the edge at f, so these integrals give the
    integral of every box of cells. They are computed by integration by parts, from the
    antiderivatives of the given box.

    Args:
        start: First pixels of the boxes, (N, T), float64.
        end: One past their last pixels.
        stride: Pixels per cell.
        length: Pixels of the axis, n * stride.

    Returns:
        Edge times box (N, T, n + 1), edge alone (n + 1,) and box alone (N, T).
    """
    start, end = start[..., None], end[..., None]
    edges = torch.arange(0, length + 1, stride, dtype=start.dtype, device=start.device)
    limit = torch.full_like(start, length)
    end_once, end_twice = _antiderivatives(limit, start, end)
    overlap = alone = start.new_zeros(())
    for knot, sign in ((edges - stride / 2, 1), (edges + stride / 2, -1)):
        low = knot.clamp(0, length)
        once, twice = _antiderivatives(low, start, end)
        part = (length - knot) * end_once - (low - knot) * once - (end_twice - twice)
        overlap = overlap + sign * part / stride
        above, below = length - knot, (-knot).clamp(min=0)
        alone = alone + sign * (above.clamp(min=0).square() - below.square()) / (2 * stride)
    zero_once, _ = _antiderivatives(torch.zeros_like(start), start, end)
    return overlap, alone, (end_once - zero_once)[..., 0]


def box_dice_cost(
    pred_boxes: Tensor,
    target_boxes: Tensor,
    image_size: tuple[int, int],
    stride: int,
    num_points: int,
) -> Tensor:
    """Dice cost between predicted and given box tubes, in closed form.

    The reference estimates this cost: it draws ``num_points`` uniform points per frame, samples
    the filled predicted box (a map at ``stride``) and the filled given box (a map of pixels)
    bilinearly with zeros outside, and computes 1 - (2 <a, g> + 1) / (sum a + sum g + 1) over the
    points of all frames. The expectations of the three sums are products of integrals of
    trapezoids along the two axes and have a closed form.

    Args:
        pred_boxes: (..., Q, T, 4), in cells, whole, as ``boxes_from_projections`` gives them.
        target_boxes: (N, T, 4) in pixels.
        image_size: (H, W) of the padded input in pixels.
        stride: Pixels per cell.
        num_points: P; it only sets the size of the smoothing constant 1 relative to the sums.

    Returns:
        (..., Q, N), float32, values in [0, 1).

    Example:
        >>> cells = torch.tensor([[[0, 0, 4, 4]], [[4, 4, 8, 8]]])  # two queries, one frame
        >>> pixels = torch.tensor([[[0.0, 0.0, 16.0, 16.0]]])
        >>> box_dice_cost(cells, pixels, image_size=(32, 32), stride=4, num_points=1000)
        tensor([[0.0952],
                [0.9969]])
    """
    # float64, because third powers of pixel coordinates are subtracted from each other
    target = torch.floor(target_boxes.double() + 0.5)
    objects = torch.arange(target.shape[0], device=target.device)[:, None]
    frames = torch.arange(target.shape[1], device=target.device)
    overlap = pred_area = target_area = target.new_ones(())
    for axis, length in ((0, image_size[1]), (1, image_size[0])):
        both, edge, box = _edge_overlaps(target[..., axis], target[..., axis + 2], stride, length)
        low, high = pred_boxes[..., axis].long(), pred_boxes[..., axis + 2].long()  # (..., Q, T)
        wide_low, wide_high = low.unsqueeze(-2), high.unsqueeze(-2)
        shared = both[objects, frames, wide_low] - both[objects, frames, wide_high]
        overlap = overlap * shared / length
        pred_area = pred_area * (edge[low] - edge[high]) / length
        target_area = target_area * box / length
    overlap = num_points * overlap.sum(-1)
    total = num_points * (pred_area.sum(-1)[..., :, None] + target_area.sum(-1))
    return (1 - (2 * overlap + 1) / (total + 1)).float()
