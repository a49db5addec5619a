"""The projection loss against the reference's values, in absent frames, and by gradient check."""

from __future__ import annotations

import torch

from maskfreevis_ext.losses.box import dice_distance, projection_loss
from maskfreevis_ext.ops.boxes import mask_projections
from tests.helpers.golden import load_golden


def test_projection_equals_the_reference() -> None:
    golden = load_golden("pieces_main")
    logits = torch.from_numpy(golden["pw_logits"]).requires_grad_()
    target = torch.from_numpy(golden["proj_gt"])
    rows, cols = mask_projections(logits[:, 0])
    target_rows, target_cols = target[:, 0].amax(-1), target[:, 0].amax(-2)
    loss = projection_loss(rows[:, None], cols[:, None], target_rows[:, None], target_cols[:, None])
    expected = torch.from_numpy(golden["project_term"])
    torch.testing.assert_close(loss.mean().detach(), expected.mean(), rtol=1e-5, atol=1e-6)
    loss.mean().backward()
    torch.testing.assert_close(
        logits.grad, torch.from_numpy(golden["project_term_grad_logits"]), rtol=1e-4, atol=1e-7
    )


def test_absent_frame_is_a_constant_without_the_penalty_and_pushes_down_with_it() -> None:
    zeros = torch.zeros(1, 1, 6)
    for weight in (0.0, 1.0):
        rows = torch.randn(1, 1, 6, requires_grad=True)
        cols = torch.randn(1, 1, 6, requires_grad=True)
        loss = projection_loss(rows, cols, zeros, zeros, empty_frame_weight=weight)
        loss.sum().backward()
        if weight == 0:
            assert float(loss.detach()) == 2.0
            assert (rows.grad == 0).all()
            assert (cols.grad == 0).all()
        else:
            assert (rows.grad > 0).all()
            assert (cols.grad > 0).all()
    empty = projection_loss(zeros - 50, zeros - 50, zeros, zeros, empty_frame_weight=1.0)
    assert float(empty) < 1e-6


def test_penalty_leaves_frames_with_the_object_alone() -> None:
    rows, cols = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 6)
    row_target, col_target = torch.rand(3, 4, 5), torch.rand(3, 4, 6)
    plain = projection_loss(rows, cols, row_target, col_target, 0.0)
    assert torch.equal(projection_loss(rows, cols, row_target, col_target, 2.0), plain)


def test_dice_distance_gradcheck() -> None:
    prediction = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)
    target = torch.rand(3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: dice_distance(x, target), (prediction,))


def test_projection_loss_gradcheck() -> None:
    rows = torch.randn(2, 2, 5, dtype=torch.float64, requires_grad=True)
    cols = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    row_target, col_target = torch.rand(2, 2, 5).double(), torch.rand(2, 2, 4).double()
    row_target[0, 1] = 0

    def loss(r: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return projection_loss(r, c, row_target, col_target, 1.0)

    assert torch.autograd.gradcheck(loss, (rows, cols))
