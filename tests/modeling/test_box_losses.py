"""Box losses: lists of pairs against whole maps, gradients, settings."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import get_cfg

from maskfreevis_ext.config import add_maskfreevis_config
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.modeling import box_losses as module
from maskfreevis_ext.modeling.box_losses import (
    BoxLossSettings,
    box_costs,
    box_losses,
    compute_affinities,
)

SIZE = (64, 96)


def _case(num_frames: int = 3, match_outside: bool = False, **changes: object) -> tuple:
    """Arguments of ``box_losses`` in float64: 4 objects of 2 clips, one absent."""
    settings = BoxLossSettings(match_outside=match_outside, temporal_warmup=0, **changes)
    blocks = torch.rand(2, 1, 3, 4, 6).repeat_interleave(16, -1).repeat_interleave(16, -2) * 255
    blocks[0] *= 0.02  # dark: looks like what is outside the map
    frames = (blocks + torch.rand(2, num_frames, 3, *SIZE) * 6).clamp(max=255)
    affinities = compute_affinities(frames, [(64, 96), (50, 90)], 4, settings)
    boxes = torch.tensor([[0.0, 0, 30, 25], [40, 20, 70, 50], [60, 30, 96, 64], [5, 5, 6, 60]])
    boxes = boxes[:, None].repeat(1, num_frames, 1) + torch.arange(num_frames)[:, None]
    boxes[1, 0] = 0
    boxes[3] = 0
    logits = torch.randn(3, 4, num_frames, 16, 24, dtype=torch.float64) * 4
    return (
        logits.requires_grad_(),
        torch.ones(3, 4, dtype=torch.float64),
        boxes.double(),
        torch.tensor([0, 0, 1, 1]),
        affinities,
        4,
        torch.ones(1),
        settings,
    )


def _run(case: tuple) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    losses = box_losses(*case)
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    total = sum((value * weights).sum() for value in losses.values())
    return losses, torch.autograd.grad(total, case[0])[0]


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
@pytest.mark.parametrize("match_outside", [False, True])
def test_lists_give_the_losses_and_gradients_of_whole_maps(
    num_frames: int, match_outside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _case(num_frames, match_outside)
    losses, gradient = _run(case)
    monkeypatch.setattr(module, "_pairwise_listed", module._pairwise_dense)
    expected, expected_gradient = _run(case)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-9, atol=1e-12)
        assert (value > 0).all() or (name == "loss_bound_neighbor" and num_frames == 1)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"search_radius": 2, "search_dilation": 2, "top_k": 9},
        {"patch_size": 5, "search_radius": 0},
        {"pairwise_dilation": 5, "search_dilation": 1},
        {"temporal_pairs": "stride-2"},
        {"temporal_pairs": "cycle", "temporal_norm_pairs": 0},
    ],
)
def test_lists_hold_for_other_neighbourhoods(
    changes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _case(4, **changes)
    losses, gradient = _run(case)
    monkeypatch.setattr(module, "_pairwise_listed", module._pairwise_dense)
    expected, expected_gradient = _run(case)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-7, atol=1e-12)


def test_listed_losses_gradcheck() -> None:
    case = _case(2)
    small = case[0].detach()[:1].clone().requires_grad_()

    def losses(logits: torch.Tensor) -> torch.Tensor:
        values = box_losses(logits, case[1][:1], *case[2:])
        return torch.cat([values["loss_bound"], values["loss_bound_neighbor"]])

    assert torch.autograd.gradcheck(losses, (small,), fast_mode=True)


def test_objects_without_a_query_weigh_nothing() -> None:
    case = list(_case(2))
    case[1] = case[1].clone()
    case[1][1, 2] = 0
    losses, gradient = _run(tuple(case))
    assert gradient[1, 2].abs().max() == 0
    assert gradient[0, 2].abs().max() > 0
    keep = torch.tensor([0, 1, 3])
    alone = box_losses(
        case[0][1:2, keep], case[1][1:2, keep], case[2][keep], case[3][keep], *case[4:]
    )
    for name, value in alone.items():
        torch.testing.assert_close(losses[name][1:2], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("LAB_CHANNEL_ORDER", "bgr"),
        ("TEMPORAL.PAIRS", "ring"),
        ("TEMPORAL.THRESHOLD", 0.0),
        ("PAIRWISE.THRESHOLD", 1.5),
        ("TEMPORAL.PATCH_SIZE", 4),
        ("TEMPORAL.TOP_K", 0),
    ],
)
def test_bad_settings_name_their_key(key: str, value: object) -> None:
    cfg = get_cfg()
    add_maskfreevis_config(cfg)
    cfg.merge_from_list([f"MODEL.MASKFREE.{key}", value])
    with pytest.raises(ConfigError, match=key.rsplit(".", 1)[-1]):
        BoxLossSettings.from_config(cfg)


@pytest.mark.parametrize("match_outside", [False, True])
@pytest.mark.parametrize("num_frames", [1, 3])
def test_costs_of_the_objects_are_their_part_of_the_loss(
    num_frames: int, match_outside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _case(num_frames, match_outside)
    weights = {"loss_mask_proj": 1.0, "loss_bound": 2.0, "loss_bound_neighbor": 3.0}
    arguments = (case[0].detach(), *case[2:], weights)
    costs = box_costs(*arguments)
    losses = _run(case)[0]
    total = sum(losses[name] * weight for name, weight in weights.items())
    torch.testing.assert_close(costs.sum(1), total.detach(), rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(module, "_costs_listed", module._costs_dense)
    torch.testing.assert_close(box_costs(*arguments), costs, rtol=1e-9, atol=1e-12)
