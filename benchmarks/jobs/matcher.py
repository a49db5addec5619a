"""Assignment of queries to objects for all decoder outputs and clips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.literal.criterion import Match, box_maps, match
from benchmarks.literal.matching import sampled_box_dice
from benchmarks.measure import Side, measure, no_result
from benchmarks.options import Options
from benchmarks.predictions import make_predictions
from benchmarks.product import build_criterion, criterion_config
from benchmarks.report import Result
from benchmarks.scene import STRIDE, Scene, make_scene
from maskfreevis_ext.ops.boxes import box_dice_cost, masks_to_boxes

ESTIMATES = 24  # sampled costs from which their standard error is computed


def run(options: Options) -> Result:
    """Measure the matching.

    Raises:
        ConfigError: An option does not fit.
    """
    scene = make_scene(options)
    predictions = make_predictions(options, scene)
    matcher = build_criterion(criterion_config(options)).matcher
    layers = [
        {"pred_logits": logits, "pred_masks": masks}
        for logits, masks in zip(predictions.logits, predictions.masks, strict=True)
    ]

    def ours() -> list[list[Match]]:
        return matcher(layers, scene.targets, scene.image_size)

    def theirs() -> list[list[Match]]:
        return [
            [
                match(
                    layer["pred_logits"][clip],
                    layer["pred_masks"][clip],
                    target["labels"],
                    box_maps(target["masks"]),
                    torch.rand(options.points, 2, device=options.device),
                )
                for clip, target in enumerate(scene.literal_targets)
            ]
            for layer in layers
        ]

    start = "class and mask logits of all queries and outputs"
    sides = [
        Side("literal", f"{start}, masks of the objects", no_result(theirs)),
        Side("ours", f"{start}, boxes of the objects", no_result(ours), baseline="literal"),
    ]
    figures = measure(sides, options)
    agreement = _agreement(ours(), theirs())
    errors = _standard_errors(options, predictions.masks[0][0], scene)
    notes = [
        f"{agreement:.1%} of the objects get the same query",
        f"closed form and one estimate at {options.points} points: {errors['share_within_3']:.1%} "
        f"within 3 standard errors, RMS {errors['rms']:.2f}",
        f"closed form and the mean of {ESTIMATES} estimates: at most "
        f"{errors['largest_of_mean']:.2f} standard errors of the mean",
    ]
    details = {"agreement": agreement, "standard_errors": errors}
    return Result(sides, figures, {}, details, notes)


def _agreement(ours: Sequence[Sequence[Match]], theirs: Sequence[Sequence[Match]]) -> float:
    """Share of the objects of all outputs and clips that both sides give to the same query."""
    same = count = 0
    for of_layer, expected in zip(ours, theirs, strict=True):
        for own, other in zip(of_layer, expected, strict=True):
            first, second = (
                dict(zip(objects.tolist(), queries.tolist(), strict=True))
                for queries, objects in (own, other)
            )
            same += sum(second.get(n) == query for n, query in first.items())
            count += len(first)
    return same / max(count, 1)


def _standard_errors(options: Options, mask_logits: Tensor, scene: Scene) -> dict[str, float]:
    """Distance of the closed form of the box Dice cost from sampled estimates, in standard errors.

    For the first clip, on the CPU.
    """
    boxes = scene.targets[0]["boxes"].cpu()
    predicted = masks_to_boxes(mask_logits.cpu() > 0)
    closed = box_dice_cost(predicted, boxes, scene.image_size, STRIDE, options.points)
    estimates = torch.stack(
        [
            sampled_box_dice(
                predicted, boxes, scene.image_size, STRIDE, torch.rand(options.points, 2)
            )
            for _ in range(ESTIMATES)
        ]
    ).double()
    error = estimates.std(0).clamp(min=1e-7)
    single = (estimates - closed) / error
    mean = (estimates.mean(0) - closed) / (error / ESTIMATES**0.5)
    return {
        "share_within_3": float((single.abs() <= 3).double().mean()),
        "rms": float(single.square().mean().sqrt()),
        "largest_of_mean": float(mean.abs().max()),
    }
