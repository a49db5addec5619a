"""The list of terms: one reduction, whose size the batch does not change."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor

from maskfreevis_ext.losses import term as module
from maskfreevis_ext.losses.classification import ClassTerm
from maskfreevis_ext.losses.scene import Scene
from maskfreevis_ext.losses.term import LossTerm, replace_terms, shared_normalizers
from tests.helpers.configs import tiny_cfg
from tests.helpers.criteria import make_criterion
from tests.modeling.test_meta_arch import _clip

EVERYTHING = (
    *("MODEL.MULTIMASK.ENABLED", True, "MODEL.SPATIAL_MASK.ENABLED", True),
    *("MODEL.SPATIAL_MASK.LOSS.BOX_MODE", "weak", "MODEL.SPATIAL_MASK.LOSS.USE_TV", True),
    *("MODEL.SPATIAL_MASK.LOSS.USE_TEMPORAL", True, "MODEL.SPATIAL_MASK.LOSS.DICE", 1.0),
)


def test_counts_are_reduced_once_and_always_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = build_model(tiny_cfg(*EVERYTHING)).train(), []

    def count(value: Tensor) -> Tensor:
        calls.append(value.shape)
        return value

    monkeypatch.setattr(module, "mean_over_ranks", count)
    batches = [
        [_clip(3)],
        [_clip(4, objects=5)],
        [_clip(1, objects=0)],
        [_clip(2, supervision="mask"), _clip(2)],
    ]
    for batch in batches:
        model(batch)
    assert len(calls) == len(batches)
    assert len(set(calls)) == 1


def test_term_that_counts_something_else_than_it_says_is_named() -> None:
    class Wrong(LossTerm):
        name, row, num_counts = "loss_wrong", "", 3

        def counts(self, scene: Scene) -> Tensor:
            return torch.zeros(1, 2)

        def sums(self, scene: Scene, normalizers: Tensor) -> Tensor:
            return normalizers[:, 0]

    with pytest.raises(ValueError, match=r"loss_wrong: .*\(1, 2\).*num_counts is 3"):
        shared_normalizers([Wrong(1.0)], Scene())


def test_term_of_a_head_takes_the_place_of_one_of_the_same_name() -> None:
    first, second = ClassTerm(1.0), ClassTerm(2.0)
    others = make_criterion().terms
    terms = replace_terms([first, *others[1:]], [second])
    assert terms[0] is second
    assert [term.name for term in terms] == [term.name for term in others]


def test_something_that_no_head_has_left_is_named() -> None:
    with pytest.raises(RuntimeError, match="hypotheses"):
        Scene().given("hypotheses")


@pytest.mark.parametrize("scale", [1.0, 65536.0], ids=["float32", "scaled for float16"])
def test_no_object_weight_0_and_no_object_give_0_and_no_nan(scale: float) -> None:
    criterion = make_criterion(no_object_weight=0.0)
    outputs = {
        "pred_logits": torch.randn(1, 5, 4, requires_grad=True),
        "pred_masks": torch.randn(1, 5, 2, 8, 10, requires_grad=True),
    }
    targets = [
        {
            "labels": torch.zeros(0, dtype=torch.int64),
            "ids": torch.zeros(0, 2, dtype=torch.int64),
            "boxes": torch.zeros(0, 2, 4),
        }
    ]
    losses = criterion(outputs, targets, torch.rand(1, 2, 3, 32, 40) * 255, [(32, 40)])
    assert float(losses["loss_ce"].detach()) == 0
    (sum(losses.values()) * scale).backward()
    assert (outputs["pred_logits"].grad == 0).all()
