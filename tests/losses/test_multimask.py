"""SAM 2's losses: the original's numbers, where gradients go, degenerate batches, two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskfreevis_ext.losses.multimask import (
    IOUS_KEY,
    MASKS_KEY,
    SCORES_KEY,
    MultiStepMultiMasksAndIous,
    best_hypothesis,
    dice_per_mask,
    mask_iou,
    sigmoid_focal,
    sigmoid_focal_per_mask,
)
from tests.helpers.golden import load_golden
from tests.helpers.ranks import run_two_ranks

WEIGHTS = {"loss_mask": 20, "loss_dice": 1, "loss_iou": 1, "loss_class": 1}
RELEASE = {"supervise_all_iou": True, "iou_use_l1_loss": True, "pred_obj_scores": True}
NAMES = ("loss_mask", "loss_dice", "loss_iou", "loss_class", "core_loss")
#: Settings of the golden files.
SETTINGS: dict[str, dict[str, Any]] = {
    "release": RELEASE,
    "best_iou": {**RELEASE, "supervise_all_iou": False},
    "defaults": {},
    "focal_obj": {
        "supervise_all_iou": True,
        "pred_obj_scores": True,
        "focal_gamma_obj_score": 2.0,
        "focal_alpha_obj_score": 0.25,
    },
}


def _loss(**settings: Any) -> MultiStepMultiMasksAndIous:
    return MultiStepMultiMasksAndIous(WEIGHTS, **settings)


def _frame(*steps: tuple[Tensor, Tensor, Tensor]) -> dict[str, list[Tensor]]:
    masks, ious, scores = (list(tensors) for tensors in zip(*steps, strict=True))
    return {MASKS_KEY: masks, IOUS_KEY: ious, SCORES_KEY: scores}


def _example() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Masks, IoUs, scores and targets of the table in the notes on SAM 2."""
    masks = 3 * torch.sin(0.37 * torch.arange(432, dtype=torch.float64) + 0.2)
    ious = torch.cos(0.9 * torch.arange(9, dtype=torch.float64)).sigmoid()
    scores = torch.tensor([[2.0], [-0.5], [0.25]], dtype=torch.float64)
    targets = torch.zeros(3, 6, 8, dtype=torch.bool)
    targets[0, 1:4, 2:6] = True
    targets[1, :3, :3] = True
    return masks.reshape(3, 3, 6, 8), ious.reshape(3, 3), scores, targets


def _random(
    num_frames: int, num_objects: int, num_masks: int = 3, dtype: torch.dtype = torch.float64
) -> tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor]:
    """One step per frame, as leaves, and targets in which an object is now and then absent."""
    outputs = [
        (
            (3 * torch.randn(num_objects, num_masks, 5, 6, dtype=dtype)).requires_grad_(),
            torch.rand(num_objects, num_masks, dtype=dtype).requires_grad_(),
            torch.randn(num_objects, 1, dtype=dtype).requires_grad_(),
        )
        for _ in range(num_frames)
    ]
    targets = torch.rand(num_frames, num_objects, 5, 6) > 0.6
    targets &= (torch.rand(num_frames, num_objects) > 0.3)[..., None, None]
    return outputs, targets


def _assert_losses(losses: dict[str, Tensor], expected: Any, atol: float = 1e-6) -> None:
    assert tuple(losses) == NAMES
    values = torch.stack([losses[name].detach() for name in NAMES])
    expected = torch.as_tensor(expected, dtype=values.dtype)
    torch.testing.assert_close(values, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (RELEASE, [0.286017, 0.400302, 0.186377, 0.642315, 6.949325]),
        (SETTINGS["best_iou"], [0.286017, 0.400302, 0.065815, 0.642315, 6.828763]),
        ({}, [0.505316, 0.720468, 0.148599, 0, 10.975395]),
    ],
)
def test_losses_equal_the_table(settings: dict, expected: list[float]) -> None:
    *outputs, targets = _example()
    _assert_losses(_loss(**settings)([_frame(outputs)], targets[None]), expected)


def test_steps_of_several_masks_and_frames_add_up() -> None:
    masks, ious, scores, targets = _example()
    frames = [
        _frame((masks, ious, scores), (masks[:, :1], ious[:, :1], scores)),
        _frame((masks, ious, scores)),
    ]
    losses = _loss(**RELEASE)(frames, torch.stack([targets, targets]))
    _assert_losses(losses, [0.969916, 1.288628, 0.633809, 1.926944, 23.247703])


def test_overwritten_masks_of_a_present_object_cost_as_much_as_in_the_original() -> None:
    masks, ious, scores, targets = _example()
    masks[1] = -1024
    losses = _loss(**RELEASE)([_frame((masks, ious, scores))], targets[None])
    _assert_losses(losses, [16.14986, 0.490964, 0.253168, 0.642315, 324.383638])


def test_elementary_losses_equal_the_notes() -> None:
    masks, ious, _, targets = _example()
    targets = targets[:, None]
    focal, dice = sigmoid_focal_per_mask(masks, targets), dice_per_mask(masks, targets)
    error = (ious - mask_iou(masks, targets)).abs()
    for values, expected in (
        (focal[0], [0.616331, 0.613873, 0.449579]),
        (dice[0], [0.741372, 0.665066, 0.572892]),
        (error[1], [0.177103, 0.039717, 0.207495]),
    ):
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-6)
    assert best_hypothesis(20 * focal + dice).tolist() == [2, 1, 2]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["sam2_loss_s11", "sam2_loss_s14"])
def test_losses_and_gradients_equal_the_original(name: str, setting: str) -> None:
    golden = load_golden(name)
    targets = torch.from_numpy(golden["targets"])
    outputs = [
        tuple(
            torch.from_numpy(golden[f"{kind}_t{t}_s0"]).requires_grad_()
            for kind in ("masks", "ious", "scores")
        )
        for t in range(len(targets))
    ]
    losses = _loss(**SETTINGS[setting])([_frame(tensors) for tensors in outputs], targets)
    # the original goes through float32 here and there: BCE, IoU, normaliser
    _assert_losses(losses, np.array([golden[f"{setting}__{key}"] for key in NAMES]))
    losses["core_loss"].backward()
    for t, tensors in enumerate(outputs):
        for kind, tensor in zip(("gmask", "giou", "gscore"), tensors, strict=True):
            expected = torch.from_numpy(golden[f"{setting}__{kind}_t{t}_s0"])
            grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            torch.testing.assert_close(grad, expected, rtol=0, atol=1e-7)


def test_one_mask_equals_the_plain_losses() -> None:
    [(masks, ious, scores)], targets = _random(1, 4, num_masks=1)
    losses = _loss(**RELEASE)([_frame((masks, ious, scores))], targets)
    expected = dict.fromkeys(NAMES[:4], 0.0)
    for o in range(4):
        logit, y = masks[o, 0].detach(), targets[0, o].double()
        p = 1 / (1 + torch.exp(-logit))
        present = float(y.max())
        bce = -(y * torch.log(p) + (1 - y) * torch.log(1 - p))
        wrong = torch.where(y > 0, 1 - p, p)
        alpha = torch.where(y > 0, 0.25, 0.75)
        dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        union = max(int(((logit > 0) | (y > 0)).sum()), 1)
        iou = int(((logit > 0) & (y > 0)).sum()) / union
        score = 1 / (1 + torch.exp(-scores[o, 0].detach()))
        expected["loss_mask"] += present * float((alpha * wrong**2 * bce).mean()) / 4
        expected["loss_dice"] += present * float(dice) / 4
        expected["loss_iou"] += present * abs(float(ious[o, 0].detach()) - iou) / 4
        expected["loss_class"] -= float(torch.log(score if present else 1 - score)) / 4
    core = sum(WEIGHTS[name] * value for name, value in expected.items())
    _assert_losses(losses, [*expected.values(), core], atol=1e-10)


def test_flat_dict_equals_the_list_of_frames() -> None:
    outputs, targets = _random(3, 2)
    listed = _loss(**RELEASE)([_frame(tensors) for tensors in outputs], targets)
    flat = _loss(**RELEASE)(_frame(*outputs), targets)
    assert all(torch.equal(listed[name], flat[name]) for name in NAMES)


def test_scores_are_not_needed_without_the_flag() -> None:
    outputs, targets = _random(2, 2)
    frames = _frame(*outputs)
    expected = _loss()(frames, targets)
    del frames[SCORES_KEY]
    losses = _loss()(frames, targets)
    assert all(torch.equal(losses[name], expected[name]) for name in NAMES)
    assert float(losses["loss_class"]) == 0


def test_gradient_reaches_only_the_best_mask() -> None:
    masks, ious, scores, targets = _example()
    targets[2, 2:4, 2:4] = True
    masks.requires_grad_()
    losses = _loss(**RELEASE)([_frame((masks, ious, scores))], targets[None])
    (losses["loss_mask"] + losses["loss_dice"]).backward()
    focal = sigmoid_focal_per_mask(masks, targets[:, None])
    best = best_hypothesis(20 * focal + dice_per_mask(masks, targets[:, None]))
    is_touched = (masks.grad != 0).flatten(2).any(-1)
    assert torch.equal(is_touched, torch.nn.functional.one_hot(best, 3).bool())


def test_best_mask_follows_the_weights() -> None:
    # undecided everywhere: low focal loss; right but for five pixels, where it is sure: low Dice
    targets = torch.zeros(1, 1, 10, 10)
    targets[..., :5, :] = 1
    masks = torch.cat([torch.zeros_like(targets), 40 * targets - 20], dim=1)
    masks[0, 1, 5, :5] = 20
    focal, dice = sigmoid_focal_per_mask(masks, targets)[0], dice_per_mask(masks, targets)[0]
    assert (int(focal.argmin()), int(dice.argmin())) == (0, 1)
    frame = _frame((masks, torch.zeros(1, 2), torch.zeros(1, 1)))
    for mask_weight, dice_weight, best in ((20, 1, 0), (1, 20, 1)):
        weights = {"loss_mask": mask_weight, "loss_dice": dice_weight, "loss_iou": 1}
        losses = MultiStepMultiMasksAndIous(weights, **RELEASE)([frame], targets[:, 0][None])
        torch.testing.assert_close(losses["loss_mask"], focal[best])
        torch.testing.assert_close(losses["loss_dice"], dice[best])


@pytest.mark.parametrize("all_iou", [True, False])
def test_iou_loss_trains_the_predictions_alone(all_iou: bool) -> None:
    [(masks, ious, scores)], targets = _random(1, 3)
    targets[:, :, 0, 0] = True
    loss = _loss(**{**RELEASE, "supervise_all_iou": all_iou})
    losses = loss([_frame((masks, ious, scores))], targets)
    losses["loss_iou"].backward()
    assert masks.grad is None
    assert scores.grad is None
    assert (ious.grad != 0).sum(1).tolist() == [3 if all_iou else 1] * 3


def test_absent_object_trains_its_score_alone() -> None:
    [(masks, ious, scores)], targets = _random(1, 3)
    targets[0, :, 0, 0] = True
    targets[0, 1] = False
    with torch.no_grad():
        masks[1] = 1e4
    _loss(**RELEASE)([_frame((masks, ious, scores))], targets)["core_loss"].backward()
    assert (masks.grad[1] == 0).all()
    assert (ious.grad[1] == 0).all()
    assert (scores.grad != 0).all()
    for grad in (masks.grad[[0, 2]], ious.grad[[0, 2]]):
        assert (grad != 0).flatten(1).any(1).all()


def test_normalizer_can_be_given_and_is_one_at_least() -> None:
    outputs, targets = _random(2, 4)
    frames = _frame(*outputs)
    expected = _loss(**RELEASE)(frames, targets)
    for given, count in ((8.0, 8), (0.0, 1)):
        losses = _loss(**RELEASE)(frames, targets, num_objects=given)
        for name in NAMES:
            torch.testing.assert_close(losses[name] * count, expected[name] * 4)


@pytest.mark.parametrize("num_objects", [None, 5.0])
def test_no_object_gives_zeros_with_a_path_to_every_output(num_objects: float | None) -> None:
    width = torch.ones(3, requires_grad=True)
    outputs = (
        width[0] * torch.zeros(0, 3, 5, 6),
        width[1] * torch.zeros(0, 3),
        width[2] * torch.zeros(0, 1),
    )
    targets = torch.zeros(1, 0, 5, 6, dtype=torch.bool)
    losses = _loss(**RELEASE)([_frame(outputs)], targets, num_objects=num_objects)
    _assert_losses(losses, [0.0] * 5)
    for name in NAMES:
        (grad,) = torch.autograd.grad(losses[name], width, retain_graph=True)
        assert grad.tolist() == [0, 0, 0]
    grads = torch.autograd.grad(losses["core_loss"], outputs)
    assert [grad.shape[0] for grad in grads] == [0, 0, 0]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [0.25, -1.0])
def test_focal_equals_the_formula_and_its_gradient(alpha: float, gamma: float) -> None:
    logits = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    targets = (torch.rand(2, 1, 3, 4) > 0.5).double()
    probs = logits.sigmoid()
    right = targets * probs + (1 - targets) * (1 - probs)
    expected = -((1 - right) ** gamma) * right.log()
    if alpha >= 0:
        expected = expected * (targets * alpha + (1 - targets) * (1 - alpha))
    focal = sigmoid_focal_per_mask(logits, targets, alpha, gamma)
    torch.testing.assert_close(focal, expected.mean((-2, -1)))
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_per_mask(x, targets, alpha, gamma), (logits,)
    )
    scores = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[True], [False], [True], [False]])
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal(x, labels, alpha, gamma), (scores,))


def test_dice_gradcheck() -> None:
    logits = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(2, 1, 3, 4) > 0.5
    assert torch.autograd.gradcheck(lambda x: dice_per_mask(x, targets), (logits,))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_saturated_logits_is_finite_with_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([-1e4, -50.0, 50.0, 1e4]).expand(2, 1, 1, 4).clone().requires_grad_()
    targets = torch.tensor([False, True])[:, None, None, None].expand(2, 1, 1, 4)
    loss = sigmoid_focal_per_mask(logits, targets, gamma=gamma)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()


def test_iou_of_empty_masks_is_zero() -> None:
    logits = torch.tensor([-1.0, 1.0])[None, :, None, None].expand(1, 2, 3, 3)
    empty, full = torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    assert mask_iou(logits, empty).tolist() == [[0, 0]]
    assert mask_iou(logits, full).tolist() == [[0, 1]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    # 300 x 300 pixels: more than float16 can count
    masks = (8 * torch.randn(2, 2, 300, 300)).to(dtype).requires_grad_()
    ious, scores = torch.rand(2, 2).to(dtype), torch.randn(2, 1).to(dtype)
    targets = torch.ones(1, 2, 300, 300, dtype=torch.bool)
    losses = _loss(**RELEASE)([_frame((masks, ious, scores))], targets)
    wide = [tensor.detach().float() for tensor in (masks, ious, scores)]
    expected = _loss(**RELEASE)([_frame(wide)], targets)
    for name in NAMES:
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], expected[name])
    losses["core_loss"].backward()
    assert masks.grad.dtype == dtype
    assert masks.grad.isfinite().all()


def test_targets_are_true_where_positive_in_any_dtype() -> None:
    outputs, targets = _random(2, 3)
    frames = _frame(*outputs)
    expected = _loss(**RELEASE)(frames, targets)
    for dtype in (torch.uint8, torch.float32):
        losses = _loss(**RELEASE)(frames, targets.to(dtype))
        assert all(torch.equal(losses[name], expected[name]) for name in NAMES)


def test_weights_are_copied_and_zero_weights_skipped() -> None:
    weights = {"loss_mask": 20, "loss_dice": 1, "loss_iou": 0}
    loss = MultiStepMultiMasksAndIous(weights, **RELEASE)
    assert weights == {"loss_mask": 20, "loss_dice": 1, "loss_iou": 0}
    assert loss.weight_dict["loss_class"] == 0
    [(masks, ious, scores)], targets = _random(1, 2)
    targets[:, :, 0, 0] = True
    broken = torch.full_like(ious, torch.nan)
    losses = loss([_frame((masks, broken, scores))], targets)
    core = 20 * losses["loss_mask"] + losses["loss_dice"]
    torch.testing.assert_close(losses["core_loss"], core)


def test_weights_are_checked() -> None:
    with pytest.raises(ValueError, match="add loss_dice, loss_iou"):
        MultiStepMultiMasksAndIous({"loss_mask": 1})
    outputs, targets = _random(1, 2)
    loss = MultiStepMultiMasksAndIous({**WEIGHTS, "loss_edge": 1})
    with pytest.raises(ValueError, match="loss_edge"):
        loss(_frame(*outputs), targets)


def test_messages_give_both_shapes() -> None:
    outputs, targets = _random(2, 3)
    masks, ious, scores = outputs[1]
    loss = _loss(**RELEASE)

    def expect(match: str, *step: Tensor) -> None:
        with pytest.raises(ValueError, match=match):
            loss([_frame(outputs[0]), _frame(step)], targets)

    expect(r"frame 1, step 0.*\(2, 3, 5, 6\).*\(3, M, 5, 6\)", masks[:2], ious, scores)
    expect(r"\(3, 3, 4, 6\).*\(3, M, 5, 6\).*\(2, 3, 5, 6\)", masks[:, :, :4], ious, scores)
    expect(r"\(3, 0, 5, 6\)", masks[:, :0], ious, scores)
    expect(r"pred_ious is \(3, 1\), expected \(3, 3\)", masks, ious[:, :1], scores)
    expect(r"score_logits is \(3,\), expected \(3, 1\)", masks, ious, scores[:, 0])
    with pytest.raises(ValueError, match=r"1 frames.*\(2, 3, 5, 6\) has 2"):
        loss([_frame(outputs[0])], targets)
    with pytest.raises(ValueError, match=r"1 frames.*\(2, 3, 5, 6\) has 2"):
        loss(_frame(outputs[0]), targets)
    with pytest.raises(ValueError, match=r"expected \(T, O, H, W\), got \(3, 5, 6\)"):
        loss(_frame(*outputs), targets[0])
    frames = _frame(*outputs)
    frames[IOUS_KEY].pop()
    with pytest.raises(ValueError, match="'multistep_pred_ious': 1"):
        loss(frames, targets)
    del frames[IOUS_KEY]
    with pytest.raises(ValueError, match="add multistep_pred_ious"):
        loss(frames, targets)


def _shared_batch() -> tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor]:
    torch.manual_seed(1)
    return _random(2, 5)


def _part_of_rank(rank: int) -> list[tuple[dict[str, Tensor], tuple[Tensor, ...]]]:
    """Losses and gradients of objects 0-1 (rank 0) or 2-4 (rank 1), then of none on rank 1."""
    outputs, targets = _shared_batch()
    answers = []
    for part in ((slice(0, 2), slice(2, 5))[rank], (slice(0, 5), slice(0, 0))[rank]):
        steps = [tuple(tensor[part] for tensor in tensors) for tensors in outputs]
        losses = _loss(**RELEASE)(_frame(*steps), targets[:, part])
        leaves = [tensor for tensors in outputs for tensor in tensors]
        grads = torch.autograd.grad(losses["core_loss"], leaves)
        answers.append(({name: losses[name].detach() for name in NAMES}, grads))
    return answers


def test_two_processes_average_to_one_on_the_union(tmp_path: Path) -> None:
    ranks = run_two_ranks(_part_of_rank, tmp_path)
    outputs, targets = _shared_batch()
    expected = _loss(**RELEASE)(_frame(*outputs), targets)
    leaves = [tensor for tensors in outputs for tensor in tensors]
    grads = torch.autograd.grad(expected["core_loss"], leaves)
    for (first, first_grads), (second, second_grads) in zip(*ranks, strict=True):
        for name in NAMES:
            mean = (first[name] + second[name]) / 2
            torch.testing.assert_close(mean, expected[name].detach())
        for a, b, grad in zip(first_grads, second_grads, grads, strict=True):
            torch.testing.assert_close((a + b) / 2, grad)
