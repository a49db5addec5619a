"""Gradients of all losses and loss terms against finite differences, float64."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from maskfreevis_ext import losses
from maskfreevis_ext.losses import pairwise
from maskfreevis_ext.losses.affinities import AffinitySettings, compute_affinities
from maskfreevis_ext.losses.box import (
    BoxTerm,
    ProjectionTerm,
    SpatialPairTerm,
    TemporalPairTerm,
    dice_distance,
    projection_loss,
)
from maskfreevis_ext.losses.classification import ClassTerm
from maskfreevis_ext.losses.hypotheses import BEST, HYPOTHESES, Hypotheses
from maskfreevis_ext.losses.mask import (
    DiceTerm,
    MaskTerm,
    pairwise_bce,
    pairwise_dice,
    point_bce,
    point_dice,
)
from maskfreevis_ext.losses.matched_masks import matched_masks, of_queries, zero_anchor
from maskfreevis_ext.losses.multimask import dice_per_mask, sigmoid_focal, sigmoid_focal_per_mask
from maskfreevis_ext.losses.multimask_terms import (
    MULTIMASK_TERMS,
    HypothesisDiceTerm,
    HypothesisMaskTerm,
    IoUTerm,
    MultimaskSettings,
    PresenceTerm,
    sam2_sums,
)
from maskfreevis_ext.losses.pairwise.dense import (
    same_label_nll,
    spatial_pairwise_sums,
    temporal_pairwise_sums,
)
from maskfreevis_ext.losses.pairwise.listed import (
    CellPairs,
    listed_pairwise_sums,
)
from maskfreevis_ext.losses.priors import FillTerm, OutsideTerm, hardest_negatives
from maskfreevis_ext.losses.scene import BoxObjects, Scene
from maskfreevis_ext.losses.spatial import (
    SPATIAL_INPUTS,
    SpatialBoxTerm,
    SpatialMaskLossSettings,
    SpatialMaskTerm,
    SpatialTemporalTerm,
    SpatialTerm,
    SpatialVariationTerm,
    WeakBoxTargets,
    compute_mask_supervision_loss,
    spatial_inputs,
)
from maskfreevis_ext.losses.spatial_boxes import box_supervision_loss
from maskfreevis_ext.losses.spatial_sums import bce_sum, dice_sum, temporal_sums, variation_sums
from maskfreevis_ext.losses.teacher import TeacherTerm, masked_bce_dice
from maskfreevis_ext.losses.teacher_masks import TeacherMasks
from maskfreevis_ext.losses.term import LossTerm, shared_normalizers, weighted_losses
from maskfreevis_ext.ops.neighbors import grid_offsets, half_offsets, pair_slices
from tests.helpers.gradients import (
    GradientCase,
    assert_all_have_a_case,
    check,
    public_functions,
    wanting,
)

MAP = (4, 6)
F64 = torch.float64


def _random(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=F64)


def _labels(*shape: int) -> Tensor:
    return (torch.rand(*shape) > 0.5).to(F64)


def _of_boxes(term: BoxTerm) -> GradientCase:
    """A term of two objects in two frames of one clip, one of them once absent."""
    boxes = torch.tensor([[[2.0, 1, 13, 11], [0, 0, 0, 0]], [[9, 6, 24, 16], [3, 3, 20, 9]]])
    frames = torch.rand(1, 2, 3, 16, 24) * 40
    affinities = compute_affinities(frames, [(16, 24)], 4, AffinitySettings(match_outside=False))
    teacher = TeacherMasks(_random(2, 2, *MAP), _random(2, 2))
    both = torch.zeros(2, dtype=torch.int64)
    objects = BoxObjects(boxes.double(), both, affinities, MAP, 4, teacher=teacher)
    is_matched = torch.ones(2, 2, dtype=F64)
    counts = term.floor(term.counts_of_objects(is_matched, objects))

    def run(logits: Tensor) -> Tensor:
        fresh = replace(objects)  # with nothing kept from the last call
        return term.of_objects(logits, is_matched, fresh, counts)

    return run, (wanting(2, 2, 2, *MAP),)


def _scene(class_logits: Tensor, masks: Tensor, **more: Any) -> Scene:
    """One decoder output of one clip with two objects that have masks."""
    true = torch.zeros(2, 2, 16, 24, dtype=torch.bool)
    true[0, :, 2:9, 3:15] = True
    true[1, 0, 8:, 10:] = True
    return Scene(
        layers=[{"pred_logits": class_logits, "pred_masks": masks}],
        targets=[{"labels": torch.tensor([1, 0]), "masks": true}],
        queries=torch.tensor([[2, 0]]),
        class_weights=torch.tensor([1.0, 1, 1, 0.1], dtype=F64),
        image_size=(16, 24),
        **more,
    )


def _of_scene(term: LossTerm) -> GradientCase:
    def run(class_logits: Tensor, masks: Tensor) -> Tensor:
        torch.manual_seed(0)  # the same points each time
        scene = _scene(class_logits, masks)
        return term.sums(scene, term.floor(term.counts(scene))) + scene.anchor

    return run, (wanting(1, 3, 4), wanting(1, 3, 2, *MAP))


_MULTIMASK = MultimaskSettings(
    mask_weight=20,
    dice_weight=1,
    focal_alpha=0.25,
    focal_gamma=2.0,
    supervise_all_iou=True,
    iou_l1=False,
    obj_gamma=0.0,
    obj_alpha=-1.0,
    iou_from_boxes=True,
    iou_from_teacher=False,
    overwrite_absent=False,
    normalize=True,
)


def _hypotheses(inputs: tuple[Tensor, ...], anchor: Tensor) -> Hypotheses:
    embeddings, features, ious, scores = inputs
    logits = torch.einsum("kmnc,cthw->kmnthw", embeddings, features[0]).detach()
    matched = torch.ones(1, 2, dtype=F64)
    clips = torch.zeros(2, dtype=torch.int64)
    return Hypotheses(
        logits, embeddings, features, ious, scores, matched, clips, anchor, all_matched=True
    )


def _hypothesis_inputs() -> tuple[Tensor, ...]:
    shapes = ((1, 3, 2, 2), (1, 2, 2, *MAP), (1, 3, 2, 2), (1, 2, 2))
    return tuple(wanting(*shape) for shape in shapes)


def _of_hypotheses(kind: type) -> GradientCase:
    term = kind(1.0, _MULTIMASK)

    def run(*inputs: Tensor) -> Tensor:
        plain = torch.zeros(1, 3, 4, dtype=F64), torch.zeros(1, 3, 2, *MAP, dtype=F64)
        scene = _scene(*plain)
        scene.give(HYPOTHESES, _hypotheses(inputs, scene.anchor))
        scene.give(BEST, torch.zeros(1, 2, dtype=torch.int64))
        zero = sum(each.sum() for each in inputs) * 0  # a term need not reach every input
        return term.sums(scene, term.floor(term.counts(scene))) + zero

    return run, _hypothesis_inputs()


def _sam2() -> GradientCase:
    true = torch.rand(2, 2, *MAP) > 0.5

    def run(*inputs: Tensor) -> Tensor:
        sums = sam2_sums(_hypotheses(inputs, torch.zeros(1, dtype=F64)), true, _MULTIMASK)
        return torch.stack(list(sums.values()))

    return run, _hypothesis_inputs()


_SPATIAL = SpatialMaskLossSettings(
    dice=0.5, use_tv=True, use_temporal=True, box_mode="weak", pos_weight="auto"
)


def _spatial_targets() -> tuple[Tensor, Tensor, WeakBoxTargets]:
    target = (torch.rand(1, 2, 6, 8) > 0.5).double()
    boxes = [torch.tensor([[1.0, 1, 5, 4]]), torch.tensor([[2.0, 0, 8, 6], [0, 0, 3, 3]])]
    weak = WeakBoxTargets(boxes, torch.ones(1, 2, dtype=torch.bool), torch.rand(1, 2, 6, 8) > 0.1)
    return target, torch.rand(1, 2, 6, 8) > 0.2, weak


def _of_spatial(kind: type[SpatialTerm]) -> GradientCase:
    target, valid, weak = _spatial_targets()
    term = kind(_SPATIAL)

    def run(logits: Tensor) -> Tensor:
        scene = Scene()
        scene.give(SPATIAL_INPUTS, spatial_inputs(logits, target, valid, weak))
        return term.sums(scene, term.floor(term.counts(scene)).double())

    return run, (wanting(1, 2, 3, 4),)


def _supervision() -> GradientCase:
    target, valid, weak = _spatial_targets()
    run = lambda x: tuple(  # noqa: E731
        compute_mask_supervision_loss(x, target, valid, _SPATIAL, weak).values()
    )
    return run, (wanting(1, 2, 3, 4),)


def _lists() -> list[CellPairs]:
    pairs = []
    for count in (7, 20):
        cells = torch.randint(0, 24, (2, count))
        pairs.append(CellPairs(cells[0], cells[1], _random(count)))
    return pairs


def _spatial_pairs() -> GradientCase:
    offsets, edges = half_offsets(1, 1), []
    for offset in offsets:
        (rows, cols), _ = pair_slices(offset, *MAP)
        edges.append(torch.rand(2, 2, rows.stop - rows.start, cols.stop - cols.start) > 0.4)
    maps = _random(2, 2, *MAP)
    return lambda x: spatial_pairwise_sums(x, edges, offsets, maps)[0], (wanting(1, 2, 2, *MAP),)


def _temporal_pairs() -> GradientCase:
    matches = torch.rand(2, 2, 9, *MAP) > 0.5
    rest = [(0, 1), (2, 0)], grid_offsets(1, 1, with_center=True), _labels(2, *MAP)
    return lambda x: temporal_pairwise_sums(x, matches, *rest)[0], (wanting(1, 2, 3, *MAP),)


def _matched() -> GradientCase:
    clips, queries = torch.zeros(2, dtype=torch.int64), torch.tensor([[1, 0]])

    def run(embeddings: Tensor, features: Tensor) -> Tensor:
        masks = torch.einsum("bqc,bcthw->bqthw", embeddings, features).detach()
        layer = {"pred_masks": masks, "mask_embed": embeddings, "mask_features": features}
        return matched_masks([layer], clips, queries, torch.zeros(1, dtype=F64)).logits

    return run, (wanting(1, 2, 3), wanting(1, 3, 2, 2, 3))


def _weighted() -> GradientCase:
    terms = [ClassTerm(2.0), MaskTerm(5.0, num_points=12), DiceTerm(3.0, num_points=12)]

    def run(class_logits: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        scene = _scene(class_logits, masks)
        return tuple(weighted_losses(terms, scene, shared_normalizers(terms, scene)).values())

    return run, (wanting(1, 3, 4), wanting(1, 3, 2, *MAP))


CASES: dict[str, Callable[[], GradientCase]] = {
    "box.dice_distance": lambda: (lambda x: dice_distance(x, _TARGET), (wanting(2, 5),)),
    "box.projection_loss": lambda: (
        lambda rows, cols: projection_loss(rows, cols, _ROWS, _COLS, 0.5),
        (wanting(1, 2, 2, 4), wanting(1, 2, 2, 6)),
    ),
    "mask.point_bce": lambda: (lambda x: point_bce(x, _TARGET), (wanting(2, 5),)),
    "mask.point_dice": lambda: (lambda x: point_dice(x, _TARGET), (wanting(2, 5),)),
    "mask.pairwise_bce": lambda: (lambda x: pairwise_bce(x, _TARGET), (wanting(3, 5),)),
    "mask.pairwise_dice": lambda: (
        lambda x: pairwise_dice(x.sigmoid(), _TARGET),
        (wanting(3, 5),),
    ),
    "matched_masks.of_queries": lambda: (
        lambda x: of_queries(
            [{"m": x}], "m", torch.tensor([[1, 0]]), torch.zeros(2, dtype=torch.int64)
        ),
        (wanting(1, 3, 2),),
    ),
    "matched_masks.zero_anchor": lambda: (
        lambda x: zero_anchor([{"pred_logits": x, "pred_masks": x}]),
        (wanting(1, 2, 3),),
    ),
    "matched_masks.matched_masks": _matched,
    "multimask.sigmoid_focal_per_mask": lambda: (
        lambda x: sigmoid_focal_per_mask(x, _TRUE, 0.25, 2.0),
        (wanting(2, 3, 3, 4),),
    ),
    "multimask.sigmoid_focal": lambda: (
        lambda x: sigmoid_focal(x, torch.tensor([[True], [False]]), 0.25, 2.0),
        (wanting(2, 1),),
    ),
    "multimask.dice_per_mask": lambda: (
        lambda x: dice_per_mask(x, _TRUE),
        (wanting(2, 3, 3, 4),),
    ),
    "multimask_terms.sam2_sums": _sam2,
    "priors.hardest_negatives": lambda: (
        lambda x: hardest_negatives(x, _TARGET > 0.5, 0.3),
        (wanting(3, 2, 5),),
    ),
    "spatial.compute_mask_supervision_loss": _supervision,
    "spatial_boxes.box_supervision_loss": lambda: (
        lambda x: box_supervision_loss(
            x, [torch.tensor([[0.0, 1, 3, 3]])], torch.ones(1) > 0, torch.ones(1, 3, 4) > 0
        ),
        (wanting(1, 3, 4),),
    ),
    "spatial_sums.bce_sum": lambda: (
        lambda x: bce_sum(x, _GRID, _VALID, torch.tensor(3.0, dtype=F64)),
        (wanting(1, 2, 1, 3, 4),),
    ),
    "spatial_sums.dice_sum": lambda: (
        lambda x: dice_sum(x, _GRID, _VALID),
        (wanting(1, 2, 1, 3, 4),),
    ),
    "spatial_sums.variation_sums": lambda: (
        lambda x: tuple(total for total, _ in variation_sums(x.sigmoid(), _VALID).values()),
        (wanting(1, 2, 1, 3, 4),),
    ),
    "spatial_sums.temporal_sums": lambda: (
        lambda x: temporal_sums(x.sigmoid(), _GRID, _VALID)[0],
        (wanting(1, 2, 1, 3, 4),),
    ),
    "teacher.masked_bce_dice": lambda: (
        lambda x: masked_bce_dice(x, _MAP_TARGET, _MAP_REGION),
        (wanting(2, *MAP),),
    ),
    "term.weighted_losses": _weighted,
    "dense.same_label_nll": lambda: (same_label_nll, (wanting(9), wanting(9))),
    "dense.spatial_pairwise_sums": _spatial_pairs,
    "dense.temporal_pairwise_sums": _temporal_pairs,
    "listed.listed_pairwise_sums": lambda: (
        lambda x: listed_pairwise_sums(x, _LISTS),
        (wanting(2, 24),),
    ),
}
_generator = torch.Generator().manual_seed(3)
_TARGET = torch.rand(2, 5, dtype=F64, generator=_generator)
_ROWS = torch.rand(2, 2, 4, dtype=F64, generator=_generator)
_COLS = torch.rand(2, 2, 6, dtype=F64, generator=_generator)
_TRUE = (torch.rand(2, 1, 3, 4, generator=_generator) > 0.5).double()
_GRID = (torch.rand(1, 2, 1, 3, 4, generator=_generator) > 0.5).double()
_VALID = torch.rand(1, 2, 1, 3, 4, generator=_generator) > 0.2
_MAP_TARGET = torch.rand(*MAP, dtype=F64, generator=_generator)
_MAP_REGION = (torch.rand(*MAP, generator=_generator) > 0.3).double()
_LISTS = _lists()

TERMS: dict[type[LossTerm], Callable[[], GradientCase]] = {
    ClassTerm: lambda: _of_scene(ClassTerm(1.0)),
    MaskTerm: lambda: _of_scene(MaskTerm(1.0, num_points=12)),
    DiceTerm: lambda: _of_scene(DiceTerm(1.0, num_points=12)),
    ProjectionTerm: lambda: _of_boxes(ProjectionTerm(1.0, 0.5)),
    SpatialPairTerm: lambda: _of_boxes(SpatialPairTerm(1.0, 0)),
    TemporalPairTerm: lambda: _of_boxes(TemporalPairTerm(1.0, 0.1, 3, 0)),
    OutsideTerm: lambda: _of_boxes(OutsideTerm(1.0, 0.3)),
    FillTerm: lambda: _of_boxes(FillTerm(1.0, 0.6, 0.7)),
    TeacherTerm: lambda: _of_boxes(TeacherTerm(1.0)),
    HypothesisMaskTerm: lambda: _of_hypotheses(HypothesisMaskTerm),
    HypothesisDiceTerm: lambda: _of_hypotheses(HypothesisDiceTerm),
    IoUTerm: lambda: _of_hypotheses(IoUTerm),
    PresenceTerm: lambda: _of_hypotheses(PresenceTerm),
    SpatialMaskTerm: lambda: _of_spatial(SpatialMaskTerm),
    SpatialVariationTerm: lambda: _of_spatial(SpatialVariationTerm),
    SpatialTemporalTerm: lambda: _of_spatial(SpatialTemporalTerm),
    SpatialBoxTerm: lambda: _of_spatial(SpatialBoxTerm),
}

#: Functions through which no gradient passes, or that other cases run, and why.
WITHOUT_GRADIENT = {
    "affinities.compute_affinities": "truth values of the colours of frames",
    "box.warmup_factor": "of the number of the step",
    "hypotheses.tight_box_ious": "boxes in whole cells",
    "hypotheses.shrink_masks": "targets",
    "hypotheses.best_by_boxes": "an index",
    "matched_masks.columns_of_clips": "indices",
    "matched_masks.clip_of_object": "indices",
    "multimask.mask_iou": "a ratio of counts",
    "multimask.best_hypothesis": "an index",
    "priors.outside_all_boxes": "truth values",
    "spatial.spatial_inputs": "run by every spatial term",
    "spatial.spatial_terms": "a list of terms",
    "spatial_boxes.require_shape": "a check",
    "teacher.grow_boxes": "given boxes",
    "teacher_masks.join_teachers": "targets",
    "term.build_terms": "a list of terms",
    "term.replace_terms": "a list of terms",
    "term.shared_normalizers": "counts",
    "dense.spatial_pairs": "run by SpatialPairTerm",
    "dense.temporal_pairs": "run by TemporalPairTerm",
    "listed.listed_sums_by_object": "costs of hypotheses, by its definition",
    "listed.spatial_pairs": "run by SpatialPairTerm",
    "listed.temporal_pairs": "run by TemporalPairTerm",
}


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_a_function_equals_finite_differences(name: str) -> None:
    check(CASES[name]())


@pytest.mark.parametrize("kind", TERMS, ids=lambda kind: kind.__name__)
def test_gradient_of_a_term_equals_finite_differences(kind: type[LossTerm]) -> None:
    check(TERMS[kind]())


def test_every_function_has_a_case_or_a_reason() -> None:
    # the Triton kernels compute float32 alone; their tests compare them with "dense"
    functions = public_functions(losses) | public_functions(pairwise, apart_from=["triton"])
    assert_all_have_a_case(functions, CASES, WITHOUT_GRADIENT)


def test_every_term_has_a_case() -> None:
    terms = {
        term
        for term in _kinds_of(LossTerm)
        if term.__module__.startswith(losses.__name__)
        and not inspect.isabstract(term)
        and "name" in vars(term)
    }
    assert set(TERMS) == terms
    assert set(MULTIMASK_TERMS) <= set(TERMS)


def _kinds_of(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds_of(each)
