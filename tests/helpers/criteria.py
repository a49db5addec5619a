"""A criterion with the standard terms, made without a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskfreevis_ext.losses.affinities import AffinitySettings
from maskfreevis_ext.losses.box import ProjectionTerm, SpatialPairTerm, TemporalPairTerm
from maskfreevis_ext.losses.classification import ClassTerm
from maskfreevis_ext.losses.mask import DiceTerm, MaskTerm
from maskfreevis_ext.losses.term import LossTerm
from maskfreevis_ext.modeling.criterion import VideoSetCriterion
from maskfreevis_ext.modeling.matcher import VideoHungarianMatcher

#: The terms of each decoder output, in the order of the reference.
LOSS_NAMES = (
    *("loss_ce", "loss_mask", "loss_dice"),
    *("loss_mask_proj", "loss_bound", "loss_bound_neighbor"),
)
_TERM_SETTINGS = {
    "empty_frame_weight": 1.0,
    "pairwise_warmup": 0,
    "temporal_scale": 0.1,
    "temporal_norm_pairs": 3,
    "temporal_warmup": 200,
}


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the box terms, with their defaults, and those of what looks alike."""
    of_terms = {name: settings.get(name, value) for name, value in _TERM_SETTINGS.items()}
    return of_terms, {k: v for k, v in settings.items() if k not in _TERM_SETTINGS}


def box_terms(weights: Mapping[str, float], **settings: Any) -> list[LossTerm]:
    """The three terms of boxes."""
    of_terms, _ = split_settings(settings)
    return [
        ProjectionTerm(weights["loss_mask_proj"], of_terms["empty_frame_weight"]),
        SpatialPairTerm(weights["loss_bound"], of_terms["pairwise_warmup"]),
        TemporalPairTerm(
            weights["loss_bound_neighbor"],
            of_terms["temporal_scale"],
            of_terms["temporal_norm_pairs"],
            of_terms["temporal_warmup"],
        ),
    ]


def make_criterion(
    num_classes: int = 3,
    num_points: int = 200,
    weights: Mapping[str, float] | None = None,
    no_object_weight: float = 0.1,
    **settings: Any,
) -> VideoSetCriterion:
    """A criterion whose terms weigh 1 unless ``weights`` says otherwise."""
    weights = {**dict.fromkeys(LOSS_NAMES, 1.0), **(weights or {})}
    sampling = {"num_points": num_points, "oversample_ratio": 3.0, "importance_sample_ratio": 0.75}
    return VideoSetCriterion(
        num_classes=num_classes,
        matcher=VideoHungarianMatcher(
            class_weight=2.0, mask_weight=5.0, dice_weight=5.0, num_points=num_points
        ),
        terms=[
            ClassTerm(weights["loss_ce"]),
            MaskTerm(weights["loss_mask"], **sampling),
            DiceTerm(weights["loss_dice"], **sampling),
            *box_terms(weights, **settings),
        ],
        no_object_weight=no_object_weight,
        affinity_settings=AffinitySettings(**split_settings(settings)[1]),
    )
