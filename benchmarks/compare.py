"""Values of the package beside those of the literal implementation, on the same matches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from benchmarks.literal.criterion import literal_losses
from benchmarks.literal.step import total, weighted
from benchmarks.options import Options
from benchmarks.predictions import Predictions, dense_start, embedded_start
from benchmarks.product import (
    REFERENCE_MODE,
    build_criterion,
    criterion_config,
    layers_of,
    loss_weights,
    pairs_of,
)
from benchmarks.report import relative_difference
from benchmarks.scene import Scene
from maskfreevis_ext.errors import DataError


def loss_differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, float]:
    """Relative difference of every loss that the literal implementation has.

    Raises:
        DataError: A loss is missing, or not finite.
    """
    differences = {}
    for name, expected in theirs.items():
        if name not in ours or not bool(torch.isfinite(ours[name]) & torch.isfinite(expected)):
            raise DataError(
                f"{name}: expected finite values of both sides, got {ours.get(name)} and {expected}"
            )
        differences[name] = relative_difference(ours[name], expected)
    return differences


def gradient_of(tensors: Iterable[Tensor]) -> Tensor:
    """The gradients of several tensors in one vector; zeros where there is none."""
    return torch.cat(
        [
            (torch.zeros_like(tensor) if tensor.grad is None else tensor.grad).flatten()
            for tensor in tensors
        ]
    )


def compare_values(
    options: Options, scene: Scene, predictions: Predictions
) -> tuple[dict[str, float], dict[str, float]]:
    """Differences of losses and gradients, with the config values of the reference.

    Returns:
        Name of each loss → relative difference, and the same for the gradients of ``logits``,
        ``masks`` and ``features``.

    Raises:
        DataError: A loss is missing, or not finite.
    """
    cfg = criterion_config(options, *REFERENCE_MODE)
    criterion = build_criterion(cfg)
    ours, theirs = dense_start(predictions), dense_start(predictions)
    matches = criterion.matcher(layers_of(ours.outputs), scene.targets, scene.image_size)
    literal = literal_losses(
        theirs.outputs, scene.literal_targets, scene.frames, pairs_of(options), matches=matches
    )
    expected = weighted(literal, loss_weights(cfg))
    total(expected).backward()
    arguments = scene.targets, scene.frames, scene.frame_sizes, matches
    losses = criterion(ours.outputs, *arguments)
    differences = loss_differences(losses, expected)
    total(losses).backward()
    count = options.layers
    gradients = {
        "logits": relative_difference(
            gradient_of(ours.leaves[:count]), gradient_of(theirs.leaves[:count])
        ),
        "masks": relative_difference(
            gradient_of(ours.leaves[count:]), gradient_of(theirs.leaves[count:])
        ),
    }
    lean = embedded_start(predictions)
    total(criterion(lean.outputs, *arguments)).backward()
    # masks = embeddings @ features, so that the gradient of the features follows from theirs
    shape = (len(predictions.masks), *predictions.masks[0].shape[:2], -1)
    of_masks = gradient_of(theirs.leaves[count:]).view(shape)  # (L, B, Q, T * h * w)
    wanted = torch.einsum("lbqd,lbqx->bdx", torch.stack(predictions.embeddings), of_masks)
    gradients["features"] = relative_difference(gradient_of(lean.leaves[-1:]), wanted.flatten())
    return differences, gradients
