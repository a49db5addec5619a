"""All losses, with similarity and matching."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.compare import compare_values
from benchmarks.literal.criterion import literal_losses
from benchmarks.literal.step import total
from benchmarks.measure import Side, measure
from benchmarks.options import Options
from benchmarks.predictions import (
    Predictions,
    dense_start,
    embedded_start,
    make_predictions,
    mask_product,
    outputs_of,
)
from benchmarks.product import Outputs, build_criterion, criterion_config, layers_of, pairs_of
from benchmarks.report import Result
from benchmarks.scene import make_scene, note_pass_rates, pass_rates


def run(options: Options) -> Result:
    """Measure the criterion.

    Raises:
        ConfigError: An option does not fit.
        DataError: A loss is not finite.
    """
    scene = make_scene(options)
    predictions = make_predictions(options, scene)
    criterion, pairs = build_criterion(criterion_config(options)), pairs_of(options)

    def ours(outputs: Outputs) -> Tensor:
        return total(criterion(outputs, scene.targets, scene.frames, scene.frame_sizes))

    def theirs(outputs: Outputs) -> Tensor:
        targets = scene.literal_targets
        return total(literal_losses(outputs, targets, scene.frames, pairs, options.points))

    dense, lean = dense_start(predictions), embedded_start(predictions)
    given = "class logits and dense mask logits of all queries, all with gradients"
    lean_given = (
        "class logits, mask embeddings and mask features with gradients, mask logits without"
    )
    sides = [
        Side("literal", given, lambda: theirs(dense.outputs), dense.leaves),
        Side("ours", lean_given, lambda: ours(lean.outputs), lean.leaves, "literal"),
        Side("ours, dense", given, lambda: ours(dense.outputs), dense.leaves, "literal"),
    ]
    if options.with_product:
        sides += _sides_with_product(predictions, ours, theirs)
    figures = measure(sides, options)
    differences, gradients = compare_values(options, scene, predictions)
    rates = pass_rates(scene, pairs)
    notes = [
        "gradients differ by "
        + ", ".join(f"{value:.1e} ({name})" for name, value in gradients.items()),
        note_pass_rates(rates),
    ]
    details = {"pass_rates": rates, "gradient_differences": gradients}
    return Result(sides, figures, differences, details, notes)


def _sides_with_product(
    predictions: Predictions,
    ours: Callable[[Outputs], Tensor],
    theirs: Callable[[Outputs], Tensor],
) -> list[Side]:
    """Both sides from embeddings and features, with the product that makes the mask logits."""
    start = embedded_start(predictions)
    count = len(predictions.logits)
    logits, embeddings, features = (
        start.leaves[:count],
        start.leaves[count : 2 * count],
        start.leaves[-1],
    )

    def literal_forward() -> Tensor:
        masks = mask_product(embeddings, features)
        layers = [
            {"pred_logits": of_layer, "pred_masks": mask}
            for of_layer, mask in zip(logits, masks, strict=True)
        ]
        return theirs(outputs_of(layers))

    def our_forward() -> Tensor:
        with torch.no_grad():
            masks = mask_product(embeddings, features)
        layers = [
            {**layer, "pred_masks": mask}
            for layer, mask in zip(layers_of(start.outputs), masks, strict=True)
        ]
        return ours({**start.outputs, **outputs_of(layers)})

    given = "class logits, mask embeddings and mask features, the product of the two included"
    name = "literal with product"
    return [
        Side(name, given, literal_forward, start.leaves),
        Side("ours with product", given, our_forward, start.leaves, name),
    ]
