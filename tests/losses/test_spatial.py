"""Supervision of the spatial mask: what counts, what does not, and the box form by hand."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses import term
from maskfreevis_ext.losses.spatial import (
    SpatialMaskLossSettings,
    WeakBoxTargets,
    box_supervision_loss,
    compute_mask_supervision_loss,
)
from tests.helpers.configs import base_cfg

PLAIN = SpatialMaskLossSettings()
EVERYTHING = SpatialMaskLossSettings(
    dice=1.0, use_tv=True, use_temporal=True, box_mode="weak", pos_weight="auto"
)


def _batch(shape: tuple[int, ...] = (2, 3, 5, 6), scale: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that want a gradient, a target and all-True pixels."""
    size = (*shape[:-2], shape[-2] * scale, shape[-1] * scale)
    target = (torch.rand(size) > 0.7).float()
    return torch.randn(shape, requires_grad=True), target, torch.ones(size, dtype=torch.bool)


def _logit(probs: list) -> Tensor:
    return torch.logit(torch.tensor(probs, dtype=torch.float64)).requires_grad_()


def _disc_boxes(size: int = 24) -> tuple[Tensor, list[Tensor]]:
    """Disc of radius 6 at (12, 10), (1, H, W) bool, and its tight box."""
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    disc = (x - 12) ** 2 + (y - 10) ** 2 < 36
    return disc[None], [torch.tensor([[6.0, 4.0, 18.0, 16.0]])]


def _weak(target: Tensor, num_boxes: int = 1) -> WeakBoxTargets:
    """The last frame of every clip has boxes."""
    box = torch.tensor([[1.0, 1.0, 4.0, 3.0]]).repeat(num_boxes, 1)
    frames = torch.zeros(target.shape[:-2], dtype=torch.bool)
    frames[:, -1] = True
    return WeakBoxTargets([box] * frames.numel(), frames, torch.ones_like(target).bool())


# ---------------------------------------------------------------- masks


def test_bce_of_all_pixels_equals_torch() -> None:
    logits, target, valid = _batch()
    losses = compute_mask_supervision_loss(logits, target, valid, PLAIN)
    assert list(losses) == ["loss_spatial_mask"]
    expected = F.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(losses["loss_spatial_mask"], expected)


def test_logits_are_resized_to_the_target_and_weighted() -> None:
    logits, target, valid = _batch(scale=4)
    big = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
    expected = 0.5 * F.binary_cross_entropy_with_logits(big, target)
    settings = SpatialMaskLossSettings(weight=0.5)
    loss = compute_mask_supervision_loss(logits, target.bool(), valid, settings)
    torch.testing.assert_close(loss["loss_spatial_mask"], expected)


@pytest.mark.parametrize("per_pixel", [True, False])
def test_invalid_frames_have_no_value_and_no_gradient(per_pixel: bool) -> None:
    logits, target, _ = _batch(scale=2)
    frames = torch.tensor([[True, False, True], [False, True, True]])
    valid = frames[..., None, None].expand(target.shape) if per_pixel else frames
    target = torch.where(frames[..., None, None], target, torch.nan)
    loss = compute_mask_supervision_loss(logits, target, valid, PLAIN)["loss_spatial_mask"]
    subset = logits[frames][None], target[frames][None]
    ones = torch.ones(1, int(frames.sum()), dtype=torch.bool)
    expected = compute_mask_supervision_loss(*subset, ones, PLAIN)["loss_spatial_mask"]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (logits.grad[~frames] == 0).all()
    assert (logits.grad[frames] != 0).all()


def test_invalid_pixels_are_ignored_by_every_term() -> None:
    logits, target, valid = _batch()
    valid[..., 4:] = False
    weak = dataclasses.replace(_weak(target), valid=valid)
    losses = compute_mask_supervision_loss(logits, target, valid, EVERYTHING, weak)
    sum(losses.values()).backward()
    assert (logits.grad[..., 4:] == 0).all()
    cut = [x[..., :4] for x in (logits.detach(), target, valid)]
    weak = dataclasses.replace(weak, valid=cut[2])
    torch.testing.assert_close(losses, compute_mask_supervision_loss(*cut, EVERYTHING, weak))


@pytest.mark.parametrize("settings", [PLAIN, EVERYTHING])
@pytest.mark.parametrize("with_weak", [True, False])
def test_no_ground_truth_gives_zero_with_a_gradient_path(
    settings: SpatialMaskLossSettings, with_weak: bool
) -> None:
    logits, target, _ = _batch()
    weak = None
    if with_weak:
        weak = dataclasses.replace(_weak(target), box_frames=torch.zeros(2, 3, dtype=torch.bool))
    none = torch.zeros(2, 3, dtype=torch.bool)
    losses = compute_mask_supervision_loss(logits, target, none, settings, weak)
    assert all(float(value.detach()) == 0 for value in losses.values())
    for value in losses.values():
        (grad,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert torch.equal(grad, torch.zeros_like(logits))


def test_keys_depend_on_the_settings_only() -> None:
    logits, target, valid = _batch()
    names = ["loss_spatial_mask", "loss_spatial_tv", "loss_spatial_temporal", "loss_spatial_box"]
    for weak in (None, _weak(target)):
        assert list(compute_mask_supervision_loss(logits, target, valid, EVERYTHING, weak)) == names
        assert list(compute_mask_supervision_loss(logits, target, valid, PLAIN, weak)) == names[:1]


@pytest.mark.parametrize(
    ("logits", "target", "valid"),
    [
        ((2, 3, 4, 4), (2, 4, 8, 8), (2, 4, 8, 8)),
        ((2, 6, 4, 4), (2, 3, 2, 8, 8), (2, 3, 2)),
        ((6, 4, 4), (6, 8, 8), (6, 8, 8)),
        ((2, 3, 1, 1, 4, 4), (2, 3, 1, 1, 8, 8), (2, 3)),
        ((2, 3, 4, 4), (2, 3, 8, 8), (2, 3, 8, 4)),
        ((2, 3, 4, 4), (2, 3, 8, 8), (3, 2)),
        ((2, 3, 4, 4), (2, 3, 8, 8), (2, 3, 1)),
    ],
)
def test_wrong_shapes_raise_with_both_shapes(
    logits: tuple[int, ...], target: tuple[int, ...], valid: tuple[int, ...]
) -> None:
    is_valid = torch.ones(valid, dtype=torch.bool)
    with pytest.raises(ValueError, match="got") as error:
        compute_mask_supervision_loss(torch.zeros(logits), torch.zeros(target), is_valid, PLAIN)
    leads_agree = len(logits) in (4, 5) and logits[:-2] == target[:-2]
    named = (target, valid) if leads_agree else (logits, target)
    assert all(str(shape) in str(error.value) for shape in named)


def test_wrong_weak_shapes_raise_with_both_shapes() -> None:
    logits, target, valid = _batch()
    weak = _weak(target)
    wrong = [
        (dataclasses.replace(weak, box_frames=torch.ones(6).bool()), r"\(2, 3\), got \(6,\)"),
        (dataclasses.replace(weak, valid=valid[..., :4]), r"5, 6\), got \(2, 3, 5, 4\)"),
        (dataclasses.replace(weak, boxes=weak.boxes[:4]), "4 entries.* 6 frames"),
        (dataclasses.replace(weak, boxes=[torch.zeros(4)] * 6), r"\(n, 4\), got \(4,\)"),
    ]
    for targets, message in wrong:
        with pytest.raises(ValueError, match=message):
            compute_mask_supervision_loss(logits, target, valid, EVERYTHING, targets)


@pytest.mark.parametrize("settings", [PLAIN, EVERYTHING])
def test_ranks_4_and_5_agree(settings: SpatialMaskLossSettings) -> None:
    logits, target, valid = _batch(scale=2)
    weak = _weak(target)
    flat = compute_mask_supervision_loss(logits, target, valid, settings, weak)
    views = [x.unsqueeze(2) for x in (logits, target, valid)]
    weak = WeakBoxTargets(weak.boxes, weak.box_frames[..., None], weak.valid.unsqueeze(2))
    torch.testing.assert_close(compute_mask_supervision_loss(*views, settings, weak), flat)


def test_views_are_further_frames_and_may_share_their_validity() -> None:
    logits, target, _ = _batch((2, 3, 2, 4, 5), scale=2)
    by_time = torch.tensor([[True, False, True], [True, True, False]])
    by_view = by_time[..., None].expand(2, 3, 2)
    views = [
        compute_mask_supervision_loss(logits, target, v, EVERYTHING) for v in (by_time, by_view)
    ]
    torch.testing.assert_close(views[0], views[1])
    split = [x.transpose(1, 2).flatten(0, 1) for x in (logits, target, by_view)]  # (B * V, T, ...)
    torch.testing.assert_close(compute_mask_supervision_loss(*split, EVERYTHING), views[0])


def test_dice_is_added_per_frame_over_valid_pixels() -> None:
    logits, target, valid = _batch()
    valid[:, 0] = False
    valid[..., 0, :] = False
    bce = compute_mask_supervision_loss(logits, target, valid, PLAIN)["loss_spatial_mask"]
    settings = SpatialMaskLossSettings(weight=2.0, dice=3.0)
    loss = compute_mask_supervision_loss(logits, target, valid, settings)["loss_spatial_mask"]
    p, y = logits[:, 1:, 1:].sigmoid(), target[:, 1:, 1:]
    size = p.sum((-2, -1)) + y.sum((-2, -1))
    dice = 1 - (2 * (p * y).sum((-2, -1)) + 1) / (size + 1)
    torch.testing.assert_close(loss, 2 * (bce + 3 * dice.mean()))


def test_pos_weight_is_that_of_torch_and_auto_is_clamped() -> None:
    logits, target, valid = _batch()
    valid[0, 0] = False

    def loss(pos_weight: float | str, labels: Tensor) -> Tensor:
        settings = SpatialMaskLossSettings(pos_weight=pos_weight)
        return compute_mask_supervision_loss(logits, labels, valid, settings)["loss_spatial_mask"]

    expected = F.binary_cross_entropy_with_logits(
        logits[valid], target[valid], pos_weight=torch.tensor(2.5)
    )
    torch.testing.assert_close(loss(2.5, target), expected)
    positives = target[valid].sum()
    ratio = float((valid.sum() - positives) / positives)
    torch.testing.assert_close(loss("auto", target), loss(ratio, target))
    torch.testing.assert_close(loss("auto", 1 - target), loss(1.0, 1 - target))  # ratio < 1
    rare = torch.zeros_like(target)
    rare[1, 1, 2, 3] = 1
    torch.testing.assert_close(loss("auto", rare), loss(100.0, rare))  # ratio 149
    torch.testing.assert_close(loss("auto", rare * 0), loss(1.0, rare * 0))


def test_normaliser_is_the_mean_over_ranks_or_the_given_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits, target, valid = _batch()
    loss = compute_mask_supervision_loss(logits, target, valid, PLAIN)["loss_spatial_mask"]
    total = loss * valid.sum()
    given = compute_mask_supervision_loss(logits, target, valid, PLAIN, num_valid=45)
    torch.testing.assert_close(given["loss_spatial_mask"], total / 45)
    none = compute_mask_supervision_loss(logits, target, valid, PLAIN, num_valid=torch.tensor(0.0))
    torch.testing.assert_close(none["loss_spatial_mask"], total)
    calls = []

    def other_rank_is_empty(value: Tensor) -> Tensor:
        calls.append(value.shape)
        return value / 2

    monkeypatch.setattr(term, "mean_over_ranks", other_rank_is_empty)
    shared = compute_mask_supervision_loss(logits, target, valid, PLAIN)["loss_spatial_mask"]
    torch.testing.assert_close(shared, 2 * loss)
    # ranks with and without targets make the same calls, else they would wait for ever
    calls.clear()
    compute_mask_supervision_loss(logits, target, valid, EVERYTHING, _weak(target))
    compute_mask_supervision_loss(logits, target, valid & False, EVERYTHING, None)
    assert len(calls) == 2
    assert calls[0] == calls[1]


# ---------------------------------------------------------------- smoothness


def test_tv_by_hand() -> None:
    logits = _logit([[[[0.1, 0.5, 0.2], [0.4, 0.5, 0.9]]]])
    target, valid = torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 3, dtype=torch.bool)
    settings = SpatialMaskLossSettings(use_tv=True, tv_weight=0.5)

    def loss() -> float:
        losses = compute_mask_supervision_loss(logits, target, valid, settings)
        assert list(losses) == ["loss_spatial_mask", "loss_spatial_tv"]
        return float(losses["loss_spatial_tv"].detach())

    # dx: 0.4 0.3 | 0.1 0.4; dy: 0.3 0.0 0.7
    assert loss() == pytest.approx(0.5 * 0.1 * (1.2 / 4 + 1.0 / 3), rel=1e-5)
    valid[..., 0, 2] = False  # takes dx 0.3 and dy 0.7 away
    assert loss() == pytest.approx(0.5 * 0.1 * (0.9 / 3 + 0.3 / 2), rel=1e-5)


def test_temporal_by_hand() -> None:
    logits = _logit([[[[0.1, 0.5]], [[0.4, 0.9]], [[0.6, 0.2]]]])
    target, valid = torch.zeros(1, 3, 1, 2), torch.ones(1, 3, 1, 2, dtype=torch.bool)
    settings = SpatialMaskLossSettings(use_temporal=True, tv_weight=0.5)

    def loss() -> float:
        losses = compute_mask_supervision_loss(logits, target, valid, settings)
        assert list(losses) == ["loss_spatial_mask", "loss_spatial_temporal"]
        return float(losses["loss_spatial_temporal"].detach())

    # changes: 0.3 0.4 | 0.2 0.7
    assert loss() == pytest.approx(0.5 * 0.05 * (0.7 / 2 + 0.9 / 2) / 2, rel=1e-5)
    target[0, 1, 0, 1] = 1  # moving in frame 1: 0.7 counts as 0
    assert loss() == pytest.approx(0.5 * 0.05 * (0.7 / 2 + 0.2 / 2) / 2, rel=1e-5)
    target[0, 2, 0, 0] = 1  # the last frame has no successor
    assert loss() == pytest.approx(0.5 * 0.05 * (0.7 / 2 + 0.2 / 2) / 2, rel=1e-5)
    valid[0, 2] = False
    assert loss() == pytest.approx(0.5 * 0.05 * 0.7 / 2, rel=1e-5)


def test_temporal_of_one_frame_is_zero_with_a_gradient_path() -> None:
    logits, target, valid = _batch((2, 1, 3, 4))
    settings = SpatialMaskLossSettings(use_temporal=True)
    loss = compute_mask_supervision_loss(logits, target, valid, settings)["loss_spatial_temporal"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


# ---------------------------------------------------------------- boxes


def test_disc_is_better_than_a_leak_and_box_negatives_drops_the_outside() -> None:
    disc, boxes = _disc_boxes()
    ones = torch.ones_like(disc)
    box = torch.zeros_like(disc)
    box[:, 4:16, 6:18] = True
    leak = box.clone()
    leak[:, :, :3] = True

    def loss(mask: Tensor, negatives: bool = True) -> float:
        logits = mask.float() * 12 - 6
        return float(box_supervision_loss(logits, boxes, ones[:, 0, 0], ones, negatives))

    assert loss(disc) == pytest.approx(3 * float(F.softplus(torch.tensor(-6.0))), rel=1e-5)
    assert loss(disc) < loss(leak) - 0.5
    assert loss(disc, False) == pytest.approx(loss(leak, False), rel=1e-6)
    assert loss(disc & (torch.arange(24) < 12), False) > loss(disc, False) + 1  # half of the box


def test_box_loss_equals_loops() -> None:
    logits = torch.randn(3, 6, 7)
    boxes = [
        torch.tensor([[0.6, 1.0, 3.5, 4.2], [2.0, 2.0, 7.0, 6.0]]),  # columns 1..2 and rows 1..3
        torch.zeros(0, 4),
        torch.tensor([[3.0, 0.0, 5.0, 2.0]]),
    ]
    valid = torch.ones(3, 6, 7, dtype=torch.bool)
    valid[:, 5] = False
    box_frames = torch.tensor([True, True, False])
    pixels = [[(range(1, 4), range(1, 3)), (range(2, 5), range(2, 7))], []]
    expected = 0.0
    for f, areas in enumerate(pixels):
        outside = {(y, x) for y in range(5) for x in range(7)}
        terms = []
        for ys, xs in areas:
            outside -= {(y, x) for y in ys for x in xs}
            rows = [F.softplus(-max(logits[f, y, x] for x in xs)) for y in ys]
            columns = [F.softplus(-max(logits[f, y, x] for y in ys)) for x in xs]
            terms.append(sum(rows) / len(rows) + sum(columns) / len(columns))
        expected += sum(terms) / max(len(terms), 1)
        expected += sum(F.softplus(logits[f, y, x]) for y, x in outside) / len(outside)
    loss = box_supervision_loss(logits, boxes, box_frames, valid)
    torch.testing.assert_close(loss, expected / 2)
    torch.testing.assert_close(
        box_supervision_loss(logits, boxes, box_frames, valid, num_frames=8.0), expected / 8
    )


def test_frames_without_box_supervision_have_no_gradient() -> None:
    logits, target, _ = _batch()
    with torch.no_grad():
        logits[:, 0] = torch.nan  # whatever stands there
    frames = torch.zeros(2, 3, dtype=torch.bool)
    settings = SpatialMaskLossSettings(weight=3.0, box_mode="weak")
    weak = _weak(target, num_boxes=2)
    losses = compute_mask_supervision_loss(logits, target, frames, settings, weak)
    plain = box_supervision_loss(
        logits.flatten(0, 1), weak.boxes, weak.box_frames.flatten(), weak.valid.flatten(0, 1)
    )
    torch.testing.assert_close(losses["loss_spatial_box"], 3 * plain)
    losses["loss_spatial_box"].backward()
    assert (logits.grad[:, :-1] == 0).all()
    assert (logits.grad[:, -1] != 0).any()


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((2.6, 1.6, 2.9, 1.9), [(1, 2)]),  # smaller than a pixel, no centre inside
        ((2.5, 1.0, 3.5, 2.0), [(1, 2)]),  # the centre on the left edge is in, on the right out
        ((-5.0, -5.0, 0.2, 0.2), [(0, 0)]),
        ((4.9, 3.9, 9.0, 9.0), [(3, 4)]),
        ((-3.0, 0.0, 0.0, 2.0), []),  # outside
        ((2.0, 2.0, 2.0, 2.0), []),  # empty
        ((float("nan"), 0.0, 2.0, 2.0), []),
    ],
)
def test_small_cut_and_empty_boxes(box: tuple[float, ...], pixels: list) -> None:
    logits = torch.zeros(1, 4, 5, requires_grad=True)
    ones = torch.ones(1, 4, 5, dtype=torch.bool)
    frames = torch.ones(1, dtype=torch.bool)
    loss = box_supervision_loss(logits, [torch.tensor([box])], frames, ones, False)
    loss.backward()
    assert [tuple(i) for i in (logits.grad[0] != 0).nonzero().tolist()] == pixels
    assert torch.isfinite(logits.grad).all()
    # an empty box does not thin out the others of its frame
    whole = [0.0, 0.0, 5.0, 4.0]
    both = box_supervision_loss(logits, [torch.tensor([box, whole])], frames, ones, False)
    alone = box_supervision_loss(logits, [torch.tensor([whole])], frames, ones, False)
    torch.testing.assert_close(both, alone)


def test_equal_logits_share_the_gradient_of_a_box() -> None:
    logits = torch.zeros(1, 4, 4, requires_grad=True)
    ones = torch.ones(1, 4, 4, dtype=torch.bool)
    box_supervision_loss(
        logits, [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], ones[:, 0, 0], ones
    ).backward()
    torch.testing.assert_close(logits.grad, torch.full((1, 4, 4), -2 * 0.5 / 16))


def test_no_frames_at_all() -> None:
    logits = torch.zeros(0, 4, 5, requires_grad=True)
    none = torch.zeros(0, 4, 5, dtype=torch.bool)
    assert float(box_supervision_loss(logits, [], none[:, 0, 0], none).detach()) == 0


# ---------------------------------------------------------------- numerics


def test_gradcheck_of_all_terms() -> None:
    logits = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    target = (torch.rand(1, 2, 6, 8) > 0.5).float()
    valid = torch.rand(1, 2, 6, 8) > 0.2
    weak = _weak(target, num_boxes=2)

    def losses(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(compute_mask_supervision_loss(x, target, valid, EVERYTHING, weak).values())

    assert torch.autograd.gradcheck(losses, (logits,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, target, valid = _batch((1, 2, 40, 50), scale=4)  # 64000 pixels; float16 ends at 65504
    half = (200 * logits.detach()).to(dtype).requires_grad_()
    weak = _weak(target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = compute_mask_supervision_loss(half, target, valid, EVERYTHING, weak)
    exact = compute_mask_supervision_loss(half.float(), target, valid, EVERYTHING, weak)
    assert all(value.dtype == torch.float32 for value in losses.values())
    torch.testing.assert_close(losses, exact, rtol=0, atol=0)
    sum(losses.values()).backward()
    assert half.grad.dtype == dtype
    assert torch.isfinite(half.grad).all()


# ---------------------------------------------------------------- settings


def _config(**changes: object) -> SimpleNamespace:
    keys = {field.name.upper(): field.default for field in dataclasses.fields(PLAIN)}
    node = SimpleNamespace(**(keys | changes))
    return SimpleNamespace(MODEL=SimpleNamespace(SPATIAL_MASK=SimpleNamespace(LOSS=node)))


def test_settings_are_read_from_the_config() -> None:
    def read(cfg: object) -> SpatialMaskLossSettings:
        return SpatialMaskLossSettings(**SpatialMaskLossSettings.from_config(cfg))

    assert read(_config()) == PLAIN
    changes = {"weight": 2.0, "dice": 1.0, "use_tv": True, "tv_weight": 0.3, "use_temporal": True}
    changes |= {"box_mode": "weak", "box_negatives": False, "pos_weight": 2.5}
    changed = read(_config(**{k.upper(): v for k, v in changes.items()}))
    assert dataclasses.asdict(changed) == changes
    assert read(_config(POS_WEIGHT=0.0)).pos_weight == "auto"
    assert read(base_cfg()) == SpatialMaskLossSettings()
