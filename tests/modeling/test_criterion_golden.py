"""The criterion against the stored values and gradients of the reference."""

from __future__ import annotations

import pytest
import torch

from maskfreevis_ext.losses import mask as mask_terms
from maskfreevis_ext.modeling.criterion import VideoSetCriterion
from tests.helpers.criteria import LOSS_NAMES, make_criterion
from tests.helpers.golden import CriterionCase

CASES = [
    "crit_main_s0",
    "crit_main_s2",
    "crit_main_s3_empty",
    "crit_main_s5_pad",
    "crit_t5_s0",
    "crit_coco_s0",
    "crit_coco_s2_empty",
]
_WEIGHTS = {name: (2.0 if name == "loss_ce" else 5.0) for name in LOSS_NAMES}


def _reference_criterion(case: CriterionCase, **weights: float) -> VideoSetCriterion:
    """Our criterion with every fault of the reference switched back on."""
    return make_criterion(
        num_classes=case.num_classes,
        num_points=int(case.golden["num_points"]),
        weights=weights,
        lab_bgr=True,
        lab_quantize=True,
        match_outside=True,
        empty_frame_weight=0.0,
        temporal_pairs="cycle" if case.is_cycle else "all",
        temporal_norm_pairs=0,
        temporal_warmup=0,
    )


def _stored_points(case: CriterionCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the criterion sample the points that the reference drew."""
    layers = iter(range(case.num_layers))
    num_frames = case.masks.shape[3]

    def stored(rows: torch.Tensor, *_: object) -> torch.Tensor:
        layer = next(layers)
        points = torch.from_numpy(case.golden[f"point_coords_l{layer}"])
        points = points.unflatten(0, (-1, num_frames))
        # the reference's rows are in the order of its matches, ours in that of the objects
        start, rows_of_object = 0, []
        for _, objects in case.matches[layer]:
            rows_of_object.append(start + objects.argsort())
            start += len(objects)
        return points[torch.cat(rows_of_object)].flatten(0, 1)

    monkeypatch.setattr(mask_terms, "uncertain_point_coords", stored)


@pytest.mark.parametrize("name", CASES)
def test_losses_equal_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CriterionCase(name)
    if case.has_masks:
        _stored_points(case, monkeypatch)
    sizes = [tuple(case.frame_size)] * case.num_clips
    losses = _reference_criterion(case)(
        case.outputs, case.targets, case.frames, sizes, case.matches
    )
    expected = case.expected()
    assert len(losses) == len(LOSS_NAMES) * case.num_layers
    for key, value in losses.items():
        assert float(value.detach()) == pytest.approx(expected.get(key, 0.0), rel=1e-5, abs=1e-6), (
            key
        )


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CriterionCase(name)
    if case.has_masks:
        _stored_points(case, monkeypatch)
    sizes = [tuple(case.frame_size)] * case.num_clips
    losses = _reference_criterion(case, **_WEIGHTS)(
        case.outputs, case.targets, case.frames, sizes, case.matches
    )
    total = 0.0
    for key, value in losses.items():
        term, layer = case.split(key)
        total = total + value * (case.warmup(layer) if term == "loss_bound_neighbor" else 1.0)
    assert float(total.detach()) == pytest.approx(float(case.golden["weighted_total"]), rel=1e-5)
    total.backward()
    for tensor, key in ((case.logits, "grad_pred_logits"), (case.masks, "grad_pred_masks")):
        expected = torch.from_numpy(case.golden[key])
        got = torch.zeros_like(expected) if tensor.grad is None else tensor.grad
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_targets_and_outputs_stay_unchanged() -> None:
    case = CriterionCase("crit_main_s0")
    targets = case.targets
    before = [{key: value.clone() for key, value in target.items()} for target in targets]
    masks = case.masks.detach().clone()
    sizes = [tuple(case.frame_size)] * case.num_clips
    _reference_criterion(case)(case.outputs, targets, case.frames, sizes)
    for target, old in zip(targets, before, strict=True):
        assert target.keys() == old.keys()
        assert all(torch.equal(target[key], old[key]) for key in old)
    assert torch.equal(case.masks, masks)
