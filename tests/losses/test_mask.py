"""Point-sampled losses and costs against the reference's values."""

from __future__ import annotations

import torch

from maskfreevis_ext.losses.mask import pairwise_bce, pairwise_dice, point_bce, point_dice
from tests.helpers.golden import load_golden


def test_costs_equal_the_reference() -> None:
    golden = load_golden("pieces_main")
    logits = torch.from_numpy(golden["cost_in_logits"])
    binary = torch.from_numpy(golden["cost_in_binary"])
    target = torch.from_numpy(golden["cost_tgt"])
    expected = torch.from_numpy(golden["batch_sigmoid_ce_loss"])
    torch.testing.assert_close(pairwise_bce(logits, target), expected, rtol=1e-5, atol=1e-6)
    expected = torch.from_numpy(golden["batch_dice_loss"])
    torch.testing.assert_close(
        pairwise_dice(logits.sigmoid(), target), expected, rtol=1e-5, atol=1e-6
    )
    expected = torch.from_numpy(golden["batch_dice_loss_nosig"])
    torch.testing.assert_close(pairwise_dice(binary, target), expected, rtol=1e-5, atol=1e-6)


def test_losses_equal_the_reference() -> None:
    golden = load_golden("pieces_main")
    logits = torch.from_numpy(golden["cost_in_logits"])
    target = torch.from_numpy(golden["ploss_tgt"])
    bce = point_bce(logits, target).sum() / 2
    dice = point_dice(logits, target).sum() / 2
    torch.testing.assert_close(bce, torch.from_numpy(golden["sigmoid_ce_loss"]))
    torch.testing.assert_close(dice, torch.from_numpy(golden["dice_loss"]))


def test_pairwise_forms_agree_with_the_rowwise_ones() -> None:
    logits, labels = torch.randn(4, 30), (torch.rand(3, 30) > 0.5).float()
    for q in range(4):
        for n in range(3):
            row = logits[q : q + 1], labels[n : n + 1]
            torch.testing.assert_close(pairwise_bce(logits, labels)[q, n], point_bce(*row)[0])
            dice = pairwise_dice(logits.sigmoid(), labels)[q, n]
            torch.testing.assert_close(dice, point_dice(*row)[0])


def test_losses_gradcheck() -> None:
    logits = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    labels = torch.rand(3, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: point_bce(x, labels), (logits,))
    assert torch.autograd.gradcheck(lambda x: point_dice(x, labels), (logits,))
