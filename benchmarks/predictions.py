"""Predictions of a made-up decoder for a scene, and the tensors from which a criterion starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.options import Options
from benchmarks.product import Layer, Outputs
from benchmarks.scene import STRIDE, Scene, smooth_noise
from maskfreevis_ext.errors import ConfigError


@dataclass
class Predictions:
    """Outputs of a video decoder; lists of L decoder outputs, the last output first.

    Attributes:
        logits: Class logits, L x (B, Q, C+1).
        embeddings: Mask embeddings, L x (B, Q, D).
        features: Mask features, (B, D, T, h, w).
        masks: Mask logits, L x (B, Q, T, h, w): views of one product, as in the decoder.
    """

    logits: list[Tensor]
    embeddings: list[Tensor]
    features: Tensor
    masks: list[Tensor]


def mask_product(embeddings: Sequence[Tensor], features: Tensor) -> list[Tensor]:
    """Mask logits of all outputs by one product, L x (B, Q, T, h, w)."""
    masks = torch.bmm(torch.cat(list(embeddings), dim=1), features.flatten(2))
    return list(masks.unflatten(2, features.shape[2:]).chunk(len(embeddings), dim=1))


def make_predictions(options: Options, scene: Scene) -> Predictions:
    """Smooth mask logits: N queries fit the objects, better in later outputs; others are blobs.

    Raises:
        ConfigError: --mask-dim has no room for a channel of noise beside those of the objects.
    """
    num_objects = scene.masks.shape[1]
    num_noise = options.mask_dim - num_objects - 1
    if num_noise < 1:
        raise ConfigError(
            f"--mask-dim: expected at least --objects + 2 = {num_objects + 2}, "
            f"got {options.mask_dim}"
        )
    soft = F.avg_pool2d(scene.masks.float().flatten(0, 2)[:, None], STRIDE)
    soft = F.avg_pool2d(soft, 5, stride=1, padding=2)  # soft edges
    soft = soft.unflatten(0, scene.masks.shape[:3])[:, :, :, 0]
    size = soft.shape[2:]
    noise = torch.stack([smooth_noise(num_noise, size, (2, 9, 9)) for _ in range(options.batch)])
    features = torch.cat([2 * soft - 1, torch.ones_like(soft[:, :1]), noise.to(soft)], dim=1)
    of_object = torch.stack([torch.randperm(options.queries) for _ in range(options.batch)])
    logits, embeddings = [], []
    for layer in range(options.layers):
        quality = 1.0 if layer == 0 else layer / options.layers
        embedding = (
            torch.randn(options.batch, options.queries, options.mask_dim) * 3 / num_noise**0.5
        )
        embedding[..., :num_objects] = 0
        embedding[..., num_objects] = -3
        scores = torch.randn(options.batch, options.queries, options.classes + 1)
        for clip, target in enumerate(scene.targets):
            for n, query in enumerate(of_object[clip, :num_objects]):
                embedding[clip, query, n] = 1 + 5 * quality
                embedding[clip, query, num_objects] = -1
                scores[clip, query, target["labels"][n]] += 3 * quality
        logits.append(scores.to(options.device))
        embeddings.append(embedding.to(options.device))
    return Predictions(logits, embeddings, features, mask_product(embeddings, features))


@dataclass
class Start:
    """Outputs for a criterion, and the leaf tensors that get gradients."""

    outputs: Outputs
    leaves: list[Tensor]


def leaves_of(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Copies that get gradients."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def outputs_of(layers: list[Layer], **more: Tensor) -> Outputs:
    """The dict of a decoder from its outputs, the last one first.

    Args:
        layers: ``pred_logits``, ``pred_masks`` and perhaps ``mask_embed`` of each output.
        more: Further keys.
    """
    return {**layers[0], "aux_outputs": layers[1:], **more}


def dense_start(predictions: Predictions) -> Start:
    """Class logits and the masks of all queries as leaves."""
    logits, masks = leaves_of(predictions.logits), leaves_of(predictions.masks)
    layers = [
        {"pred_logits": of_layer, "pred_masks": mask}
        for of_layer, mask in zip(logits, masks, strict=True)
    ]
    return Start(outputs_of(layers), [*logits, *masks])


def embedded_start(predictions: Predictions) -> Start:
    """Class logits, mask embeddings and mask features as leaves; the masks have no graph."""
    logits, embeddings = leaves_of(predictions.logits), leaves_of(predictions.embeddings)
    (features,) = leaves_of([predictions.features])
    layers = [
        {"pred_logits": of_layer, "pred_masks": mask, "mask_embed": embedding}
        for of_layer, mask, embedding in zip(logits, predictions.masks, embeddings, strict=True)
    ]
    return Start(outputs_of(layers, mask_features=features), [*logits, *embeddings, features])
