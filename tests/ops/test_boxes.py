"""Boxes, projections and the closed-form Dice of box tubes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from benchmarks.literal.matching import fill_boxes, sampled_box_dice
from maskfreevis_ext.ops.boxes import (
    box_dice_cost,
    box_profiles,
    boxes_from_projections,
    mask_projections,
    masks_to_boxes,
)
from tests.helpers.golden import load_golden


def test_boxes_of_masks_fill_as_the_reference() -> None:
    golden = load_golden("pieces_main")
    masks = torch.from_numpy(golden["boxes_in"]) > 0
    boxes = masks_to_boxes(masks)
    filled = torch.from_numpy(golden["masks_to_boxes"]) > 0
    for box, expected in zip(boxes.reshape(-1, 4), filled.flatten(0, -3), strict=True):
        x0, y0, x1, y1 = box.long().tolist()
        got = torch.zeros_like(expected)
        got[y0:y1, x0:x1] = True
        assert torch.equal(got, expected)


def test_boxes_from_projections_equal_those_of_the_positive_logits() -> None:
    logits = torch.randn(4, 3, 9, 11) - 2
    boxes = boxes_from_projections(*mask_projections(logits))
    assert torch.equal(boxes.float(), masks_to_boxes(logits > 0))
    assert (boxes_from_projections(*mask_projections(-logits.abs())) == 0).all()


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_box_profiles_equal_bilinear_shrinking_of_filled_boxes(stride: int) -> None:
    size = 8 * stride, 6 * stride
    starts = torch.randint(0, 5 * stride, (20, 2))
    ends = starts + torch.randint(1, 2 * stride, (20, 2))
    boxes = torch.cat([starts, ends], dim=1).float()
    boxes[:2] = 0
    filled = fill_boxes(boxes, size)
    shrunk = F.interpolate(filled[:, None], (8, 6), mode="bilinear", align_corners=False)[:, 0]
    rows, cols = box_profiles(boxes, (8, 6), stride)
    torch.testing.assert_close(rows[:, :, None] * cols[:, None, :], shrunk)


def test_box_thinner_than_a_pixel_keeps_one() -> None:
    rows, cols = box_profiles(torch.tensor([[5.2, 1.0, 5.3, 8.0]]), (4, 4), 4)
    assert rows[0].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert cols[0].tolist() == [0.0, 0.5, 0.0, 0.0]


def test_odd_stride_raises() -> None:
    with pytest.raises(ValueError, match="even"):
        box_profiles(torch.zeros(1, 4), (4, 4), 3)


def _random_tubes(num: int, frames: int, size: tuple[int, int]) -> torch.Tensor:
    """Integer boxes (num, frames, 4), some of them empty, some at the border."""
    corners = [torch.rand(num, frames, 2) * 1.3 - 0.15 for _ in range(2)]
    low = torch.minimum(*corners).clamp(0, 1)
    high = torch.maximum(*corners).clamp(0, 1)
    scale = torch.tensor([size[1], size[0]])
    low, high = (low * scale).floor(), (high * scale).ceil()
    boxes = torch.cat([low, high], dim=-1)
    return boxes * (torch.rand(num, frames, 1) > 0.2)


def test_box_dice_cost_is_the_limit_of_the_sampled_estimate() -> None:
    size, stride, num_points = (48, 64), 4, 20_000
    pred = _random_tubes(6, 3, (12, 16))
    target = _random_tubes(4, 3, size)
    exact = box_dice_cost(pred.long(), target, size, stride, num_points)
    estimates = torch.stack(
        [sampled_box_dice(pred, target, size, stride, torch.rand(num_points, 2)) for _ in range(30)]
    )
    error = (estimates.mean(0) - exact).abs()
    standard_error = estimates.std(0) / len(estimates) ** 0.5
    # a ratio of estimates is biased by about 1 / num_points
    assert (error <= 3.5 * standard_error + 2 / num_points).all()
    assert (estimates[0] - exact).abs().max() < 0.05


def test_box_dice_cost_of_equal_tubes_is_smallest_and_of_empty_ones_is_zero() -> None:
    size = (64, 64)
    target = torch.tensor([[[8.0, 8, 40, 32]], [[0, 0, 64, 64]]])
    pred = torch.tensor([[[2, 2, 10, 8]], [[0, 0, 16, 16]]])
    cost = box_dice_cost(pred, target, size, 4, 1000)
    assert cost.argmin(0).tolist() == [0, 1]
    assert cost.diagonal().max() < 0.1  # ramps of the interpolation overlap less than boxes
    empty = torch.zeros(1, 1, 4)
    assert float(box_dice_cost(empty.long(), empty, size, 4, 1000)) == 0.0


def test_box_dice_cost_batches_over_leading_dimensions() -> None:
    size = (32, 48)
    pred = _random_tubes(10, 2, (8, 12)).long().unflatten(0, (2, 5))
    target = _random_tubes(3, 2, size)
    cost = box_dice_cost(pred, target, size, 4, 500)
    assert cost.shape == (2, 5, 3)
    torch.testing.assert_close(cost[1], box_dice_cost(pred[1], target, size, 4, 500))
