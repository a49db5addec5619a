"""Box terms: lists of pairs against whole maps, gradients, costs of single objects."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from maskfreevis_ext.losses import pairwise
from maskfreevis_ext.losses.affinities import AffinitySettings, compute_affinities
from maskfreevis_ext.losses.box import BoxTerm, TemporalPairTerm
from maskfreevis_ext.losses.scene import BoxObjects
from tests.helpers.criteria import box_terms, split_settings

SIZE = (64, 96)
WEIGHTS = {"loss_mask_proj": 1.0, "loss_bound": 2.0, "loss_bound_neighbor": 3.0}
ITERATION = torch.ones(1)


@dataclass
class Case:
    """4 objects of 2 clips in float64, one absent, and the three terms."""

    logits: Tensor
    is_matched: Tensor
    objects: BoxObjects
    terms: list[BoxTerm]

    def losses(self) -> dict[str, Tensor]:
        """Normalized terms, (K,) each, not weighted."""
        objects = replace(self.objects)  # with nothing kept from the last call
        values = {}
        for term in self.terms:
            counts = term.floor(term.counts_of_objects(self.is_matched, objects))
            value = term.of_objects(self.logits, self.is_matched, objects, counts)
            values[term.name] = value * term.factor(objects, ITERATION)
        return values


def _case(num_frames: int = 3, match_outside: bool = False, **changes: object) -> Case:
    changes = {"match_outside": match_outside, "temporal_warmup": 0, **changes}
    settings = AffinitySettings(**split_settings(changes)[1])
    blocks = torch.rand(2, 1, 3, 4, 6).repeat_interleave(16, -1).repeat_interleave(16, -2) * 255
    blocks[0] *= 0.02  # dark: looks like what is outside the map
    frames = (blocks + torch.rand(2, num_frames, 3, *SIZE) * 6).clamp(max=255)
    affinities = compute_affinities(frames, [(64, 96), (50, 90)], 4, settings)
    boxes = torch.tensor([[0.0, 0, 30, 25], [40, 20, 70, 50], [60, 30, 96, 64], [5, 5, 6, 60]])
    boxes = boxes[:, None].repeat(1, num_frames, 1) + torch.arange(num_frames)[:, None]
    boxes[1, 0] = 0
    boxes[3] = 0
    logits = torch.randn(3, 4, num_frames, 16, 24, dtype=torch.float64) * 4
    objects = BoxObjects(boxes.double(), torch.tensor([0, 0, 1, 1]), affinities, (16, 24), 4)
    terms = box_terms(WEIGHTS, **changes)
    return Case(logits.requires_grad_(), torch.ones(3, 4, dtype=torch.float64), objects, terms)


def _run(case: Case) -> tuple[dict[str, Tensor], Tensor]:
    losses = case.losses()
    total = sum((losses[name] * weight).sum() for name, weight in WEIGHTS.items())
    return losses, torch.autograd.grad(total, case.logits)[0]


def _on_whole_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "_use_lists", lambda objects: False)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
@pytest.mark.parametrize("match_outside", [False, True])
def test_lists_give_the_losses_and_gradients_of_whole_maps(
    num_frames: int, match_outside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _case(num_frames, match_outside)
    losses, gradient = _run(case)
    _on_whole_maps(monkeypatch)
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
    _on_whole_maps(monkeypatch)
    expected, expected_gradient = _run(case)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-7, atol=1e-12)


def test_listed_losses_gradcheck() -> None:
    case = _case(2)
    small = case.logits.detach()[:1].clone().requires_grad_()

    def losses(logits: Tensor) -> Tensor:
        values = replace(case, logits=logits, is_matched=case.is_matched[:1]).losses()
        return torch.cat([values["loss_bound"], values["loss_bound_neighbor"]])

    assert torch.autograd.gradcheck(losses, (small,), fast_mode=True)


def test_objects_without_a_query_weigh_nothing() -> None:
    case = _case(2)
    case.is_matched[1, 2] = 0
    case.objects = replace(case.objects, all_matched=False)
    losses, gradient = _run(case)
    assert gradient[1, 2].abs().max() == 0
    assert gradient[0, 2].abs().max() > 0
    keep = torch.tensor([0, 1, 3])
    objects = replace(
        case.objects,
        boxes=case.objects.boxes[keep],
        clips=case.objects.clips[keep],
        all_matched=True,
    )
    alone = replace(
        case,
        logits=case.logits[1:2, keep],
        is_matched=case.is_matched[1:2, keep],
        objects=objects,
    )
    for name, value in alone.losses().items():
        torch.testing.assert_close(losses[name][1:2], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("match_outside", [False, True])
@pytest.mark.parametrize("num_frames", [1, 3])
def test_costs_of_the_objects_are_their_part_of_the_loss(
    num_frames: int, match_outside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = _case(num_frames, match_outside)

    def costs() -> Tensor:
        objects, total = replace(case.objects), torch.zeros(3, 4, dtype=torch.float64)
        for term in case.terms:
            counts = term.floor(term.counts_of_objects(case.is_matched, objects))
            total += term.costs(case.logits, objects, ITERATION, counts)
        return total

    losses = _run(case)[0]
    total = sum(losses[name] * weight for name, weight in WEIGHTS.items())
    listed = costs()
    assert not listed.requires_grad
    torch.testing.assert_close(listed.sum(1), total.detach(), rtol=1e-9, atol=1e-12)
    _on_whole_maps(monkeypatch)
    torch.testing.assert_close(costs(), listed, rtol=1e-9, atol=1e-12)


def test_frame_pairs_beyond_the_shared_ones_are_counted_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = _case(4)  # 6 pairs
    expected, gradient = _run(case)
    monkeypatch.setattr(TemporalPairTerm, "num_counts", 4)
    got, got_gradient = _run(case)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got_gradient, gradient, rtol=1e-9, atol=1e-12)
