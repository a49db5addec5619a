"""Gradients of all operators against finite differences, float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from maskfreevis_ext import ops
from maskfreevis_ext.ops.boxes import mask_projections
from maskfreevis_ext.ops.color import rgb_to_lab
from maskfreevis_ext.ops.deform_attn import multi_scale_deformable_attention
from maskfreevis_ext.ops.dtypes import at_least_float32
from maskfreevis_ext.ops.points import sample_points
from maskfreevis_ext.ops.reduce import send
from maskfreevis_ext.ops.similarity import lab_map, patch_distances
from tests.helpers.gradients import (
    GradientCase,
    assert_all_have_a_case,
    check,
    public_functions,
    wanting,
)

_CPU = torch.device("cpu")


def _colors(*shape: int) -> torch.Tensor:
    return (torch.rand(*shape, dtype=torch.float64) * 200 + 25).requires_grad_()


def _attention(shapes: list[tuple[int, int]], heads: int = 2) -> GradientCase:
    cells = sum(h * w for h, w in shapes)
    value = wanting(1, cells, heads, 3)
    # between the cell centres, where a bilinear value has a derivative
    places = torch.rand(1, 2, heads, len(shapes), 2, 2, dtype=torch.float64) * 0.8 + 0.1
    weights = wanting(1, 2, heads, len(shapes), 2)
    run = lambda v, at, w: multi_scale_deformable_attention(v, shapes, at, w)  # noqa: E731
    return run, (value, places.requires_grad_(), weights)


CASES: dict[str, Callable[[], GradientCase]] = {
    "boxes.mask_projections": lambda: (mask_projections, (wanting(2, 4, 5),)),
    "boxes.mask_projections of one column": lambda: (mask_projections, (wanting(3, 4, 1),)),
    "color.rgb_to_lab": lambda: (rgb_to_lab, (_colors(2, 3, 2, 3),)),
    "color.rgb_to_lab of dark colours": lambda: (
        rgb_to_lab,
        ((torch.rand(3, 2, 2, dtype=torch.float64) * 3 + 0.5).requires_grad_(),),
    ),
    "similarity.lab_map": lambda: (lambda x: lab_map(x, 2), (_colors(1, 3, 4, 6),)),
    "similarity.lab_map of BGR": lambda: (
        lambda x: lab_map(x, 2, bgr=True),
        (_colors(1, 3, 4, 4),),
    ),
    "similarity.patch_distances": lambda: (
        lambda x: patch_distances(x, [(0, 1)], [(0, 0), (1, -1)], 3),
        (wanting(1, 2, 3, 4, 5),),
    ),
    "similarity.patch_distances of single cells": lambda: (
        lambda x: patch_distances(x, [(0, 1), (1, 0)], [(0, 1)], 1),
        (wanting(1, 2, 3, 3, 3),),
    ),
    "points.sample_points": lambda: (
        sample_points,
        (
            wanting(2, 2, 3, 4),
            (torch.rand(2, 5, 2, dtype=torch.float64) * 0.7 + 0.15).requires_grad_(),
        ),
    ),
    "deform_attn.multi_scale_deformable_attention": lambda: _attention([(3, 4), (2, 2)]),
    "deform_attn.multi_scale_deformable_attention of one level": lambda: _attention([(2, 3)]),
    "deform_attn.multi_scale_deformable_attention of one head": lambda: _attention([(3, 2)], 1),
    "dtypes.at_least_float32": lambda: (at_least_float32, (wanting(3, 2),)),
    "reduce.send": lambda: (lambda x: send(x, _CPU), (wanting(4),)),
}

#: Functions through which no gradient passes, and why.
WITHOUT_GRADIENT = {
    "boxes.boxes_from_projections": "whole cells",
    "boxes.box_dice_cost": "a cost of the matching, of boxes in whole cells",
    "boxes.masks_to_boxes": "of masks of truth values",
    "boxes.box_profiles": "of given boxes, rounded to pixels",
    "clip.select_tracks": "results: sorted scores and indices",
    "clip.select_pairs": "results: sorted scores and indices",
    "clip.class_probabilities": "results, float32",
    "clip.resize_masks": "results: truth values",
    "clip.frame_probabilities": "results, float32",
    "clip.clip_result": "results",
    "clip.apply_factors": "results: sorted scores",
    "hypotheses.pool_features": "by its definition",
    "hypotheses.stability": "a ratio of counts",
    "hypotheses.consensus": "a ratio of counts",
    "hypotheses.choose_hypothesis": "an index",
    "neighbors.grid_offsets": "whole numbers",
    "neighbors.half_offsets": "whole numbers",
    "neighbors.pair_slices": "slices",
    "points.uncertain_point_coords": "random places",
    "reduce.mean_over_ranks": "of counts, which normalize",
    "similarity.valid_cells": "truth values",
    "similarity.max_squared_distance": "a number",
    "similarity.spatial_edges": "truth values",
    "similarity.outside_edges": "counts",
    "similarity.nearest_matches": "truth values",
    "similarity.frame_pairs": "pairs of whole numbers",
    "transfer.send_together": "copies of targets",
}


@pytest.mark.parametrize("name", CASES)
def test_gradient_equals_finite_differences(name: str) -> None:
    check(CASES[name]())


def test_every_operator_has_a_case_or_a_reason() -> None:
    assert_all_have_a_case(public_functions(ops), CASES, WITHOUT_GRADIENT)
