"""Background outside all boxes and the filled share of a box: values by hand, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor

from maskfreevis_ext.config import default_config
from maskfreevis_ext.losses.affinities import AffinitySettings, compute_affinities
from maskfreevis_ext.losses.priors import FillTerm, OutsideTerm
from maskfreevis_ext.losses.scene import BoxObjects
from maskfreevis_ext.losses.term import build_terms
from tests.helpers.configs import tiny_cfg
from tests.modeling.test_meta_arch import _clip

MAP = (4, 6)
ONE = torch.ones(1, 1, dtype=torch.float64)


def _objects(boxes: Tensor, clips: list[int], sizes: list[tuple[int, int]]) -> BoxObjects:
    frames = torch.zeros(len(sizes), boxes.shape[1], 3, 16, 24)
    affinities = compute_affinities(frames, sizes, 4, AffinitySettings())
    return BoxObjects(boxes.double(), torch.tensor(clips), affinities, MAP, 4, frame_sizes=sizes)


def test_cells_outside_are_those_of_the_own_clip_without_padding() -> None:
    boxes = torch.tensor([[[0.0, 0, 8, 8]], [[8, 8, 16, 16]], [[16, 0, 20, 4]]])
    free = OutsideTerm._negative(_objects(boxes, [0, 0, 1], [(16, 24), (8, 20)]))
    first = [[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1]]
    second = [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [0] * 6, [0] * 6]
    assert free[:, 0].int().tolist() == [first, first, second]


def test_outside_is_the_mean_over_the_hardest_cells() -> None:
    boxes = torch.tensor([[[0.0, 0, 8, 8], [0, 0, 0, 0]]])  # absent from the second frame
    objects = _objects(boxes, [0], [(16, 24)])
    logits = torch.full((1, 1, 2, *MAP), -50.0, dtype=torch.float64)
    logits[0, 0, 0, 0, 0] = 50  # in the box: no concern of this term
    logits[0, 0, 0, 3, 5] = 1
    logits[0, 0, 0, 0, 5] = 0
    logits[0, 0, 1, 0, 0] = 2  # here it is outside
    value = OutsideTerm(1.0, share=0.125).by_object(logits, objects, ONE)  # 3 of 24 cells
    softplus = [math.log1p(math.exp(x)) for x in (1, 0, 2)]
    assert value.item() == pytest.approx(sum(softplus) / 3)


def test_fill_is_what_the_share_lacks_or_exceeds() -> None:
    boxes = torch.tensor([[[0.0, 0, 8, 8], [0, 0, 8, 8], [0, 0, 8, 8], [0, 0, 0, 0]]])
    objects = _objects(boxes, [0], [(16, 24)])
    logits = torch.full((1, 1, 4, *MAP), 50.0, dtype=torch.float64)  # outside: no concern
    logits[0, 0, 0, :2, :2] = torch.tensor([[50.0, -50], [-50, -50]])  # 0.25
    logits[0, 0, 1, :2, :2] = 0  # 0.5
    value = FillTerm(1.0, 0.4, 0.9).by_object(logits, objects, ONE)
    assert value.item() == pytest.approx(0.15 + 0 + 0.1 + 0)


@pytest.mark.parametrize("term", [OutsideTerm(1.0), FillTerm(1.0, 0.6, 0.61)])
def test_gradcheck(term: OutsideTerm | FillTerm) -> None:
    boxes = torch.tensor([[[2.0, 1, 13, 11], [0, 0, 0, 0]], [[10, 6, 24, 16], [3, 3, 20, 9]]])
    objects = _objects(boxes, [0, 1], [(16, 24), (12, 20)])
    logits = torch.randn(2, 2, 2, *MAP, dtype=torch.float64, requires_grad=True)
    ones = torch.ones(2, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: term.by_object(x, objects, ones), (logits,), fast_mode=True
    )


def test_both_are_left_out_by_default() -> None:
    names = {term.name for term in build_terms(default_config())}
    assert not names & {"loss_outside", "loss_fill"}
    assert "loss_teacher" in names


@pytest.mark.parametrize("options", [(), ("MODEL.MULTIMASK.ENABLED", True)])
def test_with_weights_they_are_trained_and_their_keys_are_always_there(options: tuple) -> None:
    on = ("MODEL.MASKFREE.OUTSIDE.WEIGHT", 0.5, "MODEL.MASKFREE.FILL.WEIGHT", 2.0)
    model = build_model(tiny_cfg(*on, *options)).train()
    assert model.criterion.weights["loss_fill"] == 2 * tiny_cfg().MODEL.MASK_FORMER.MASK_WEIGHT
    losses = model([_clip(2), _clip(2, supervision="mask")])
    empty = model([_clip(2, objects=0)])
    assert float(losses["loss_outside"].detach()) > 0
    for name in ("loss_outside", "loss_fill", "loss_outside_2", "loss_fill_2"):
        assert name in losses
        assert float(empty[name].detach()) == 0
        assert empty[name].requires_grad
