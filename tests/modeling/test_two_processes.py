"""Two processes together give the losses and gradients of one process on the union."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from tests.helpers.configs import tiny_cfg
from tests.helpers.ranks import run_two_ranks
from tests.modeling.test_meta_arch import _clip

SHARED = (
    *("loss_ce", "loss_mask_proj", "loss_bound", "loss_bound_neighbor", "loss_iou", "loss_class"),
    *("loss_spatial_box", "loss_teacher"),
)
HEADS = (
    *("MODEL.MULTIMASK.ENABLED", True, "MODEL.SPATIAL_MASK.ENABLED", True),
    *("MODEL.SPATIAL_MASK.LOSS.BOX_MODE", "weak", "MODEL.MASKFREE.MATCH_OUTSIDE", True),
    *("MODEL.MASKFREE.TEMPORAL.WARMUP_ITERS", 0),
)


def _model() -> nn.Module:
    torch.manual_seed(3)
    model = build_model(tiny_cfg(*HEADS)).train()
    for mlp in model.heads["multimask_head"].hypernetworks:  # hypotheses that differ
        nn.init.normal_(mlp.layers[-1].weight, std=0.5)
    return model


def _clips(kind: str) -> list[dict]:
    """The clips of the two processes; "taught": only the first one has a teacher."""
    torch.manual_seed(5)
    num_frames = 4 if kind == "longer" else 3
    supervision = "teacher" if kind == "taught" else "box"
    return [
        _clip(3, objects=3, supervision=supervision),
        _clip(num_frames, objects=0 if kind == "none" else 1),
    ]


def _losses(clips: list[dict]) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    model = _model()
    losses = {
        name: value for name, value in model(clips).items() if name.rstrip("_0123456789") in SHARED
    }
    sum(losses.values()).backward()
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {name: value.detach() for name, value in losses.items()}, gradients


def _part_of_rank(rank: int, kind: str) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    return _losses([_clips(kind)[rank]])


@pytest.mark.parametrize("kind", ["some", "none", "taught"])
def test_heads_of_two_processes_average_to_one_on_the_union(tmp_path: Path, kind: str) -> None:
    first, second = run_two_ranks(_part_of_rank, tmp_path, kind)
    losses, gradients = _losses(_clips(kind))
    assert {name.rstrip("_0123456789") for name in losses} == set(SHARED)
    for name, value in losses.items():
        torch.testing.assert_close((first[0][name] + second[0][name]) / 2, value)
    for name, gradient in gradients.items():
        mean = (first[1][name] + second[1][name]) / 2
        # gradients that cancel to nearly nothing keep the rounding of their parts
        atol = 1e-4 * float(gradient.abs().max()) + 1e-7
        torch.testing.assert_close(mean, gradient, rtol=1e-3, atol=atol)


def test_clips_of_different_lengths_share_their_normalizers(tmp_path: Path) -> None:
    """3 frames with 3 frame pairs on one process, 4 with 6 on the other: nobody waits for ever."""
    first, second = run_two_ranks(_part_of_rank, tmp_path, "longer")
    assert first[0].keys() == second[0].keys()
    assert all(torch.isfinite(value) for losses, _ in (first, second) for value in losses.values())
    three, four = (_losses([clip])[0] for clip in _clips("longer"))
    for name in (name for name in three if name.startswith("loss_mask_proj")):
        # 9 and 4 frames of objects: the mean over all 13
        expected = (9 * three[name] + 4 * four[name]) / 13
        torch.testing.assert_close((first[0][name] + second[0][name]) / 2, expected)
