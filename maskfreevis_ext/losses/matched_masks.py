"""The masks of the matched queries, with gradients to mask embeddings and mask features.

Shape letters: K decoder outputs, N objects of B clips in one list, D channels of a mask embedding,
T frames, (h, w) map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskfreevis_ext.ops.dtypes import at_least_float32
from maskfreevis_ext.ops.reduce import send


@dataclass(frozen=True)
class MatchedMasks:
    """Masks of the matched queries, one for each object.

    Attributes:
        logits: (K, N, T, h, w), float32 or better.
        is_matched: Whether the object has a query, (K, N), float. The logits of an object without
            a query are taken from an arbitrary one and must not be used.
        clips: Index of each object's clip, (N,), int64, on the CPU, ascending.
        anchor: Zeros with a gradient path, (K,), for a term that has no objects.
    """

    logits: Tensor
    is_matched: Tensor
    clips: Tensor
    anchor: Tensor

    def of_clips(self, clips: list[int]) -> MatchedMasks:
        """The masks of the objects of the given clips."""
        columns = columns_of_clips(self.clips, clips)
        if len(columns) == len(self.clips):
            return self
        if len(columns) == 0:  # a slice would make a gradient as large as all masks
            logits = self.logits.detach()[:, :0] + self.anchor.view(-1, 1, 1, 1, 1)
        else:
            logits = self.logits.index_select(1, send(columns, self.logits.device))
        is_matched = self.is_matched[:, send(columns, self.is_matched.device)]
        return MatchedMasks(logits, is_matched, self.clips[columns], self.anchor)


def of_queries(
    layers: Sequence[Mapping[str, Tensor]], name: str, queries: Tensor, clips: Tensor
) -> Tensor:
    """Select, for each object, the entry of its query from a decoder output, (K, N, ...).

    Args:
        layers: K decoder outputs.
        name: Key of a tensor (B, Q, ...) in each output.
        queries: Query of each object, (K, N); for -1, "no query", query 0 is taken.
        clips: Index of each object's clip, (N,).

    Example:
        >>> layers = [{"pred_masks": torch.arange(4).view(1, 4, 1)}]  # one clip, four queries
        >>> of_queries(layers, "pred_masks", torch.tensor([[2, 0]]), torch.tensor([0, 0])).tolist()
        [[[2], [0]]]
    """
    index = send(clips, queries.device)
    of_layers = [
        layer[name][index, query] for layer, query in zip(layers, queries.clamp(min=0), strict=True)
    ]
    return torch.stack(of_layers)


def zero_anchor(layers: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """A zero for each decoder output, with a gradient path to its class logits, (K,)."""
    anchor = torch.stack([layer["pred_logits"][..., :0].sum() for layer in layers])
    return at_least_float32(anchor)


def columns_of_clips(clip_of: Tensor, clips: list[int]) -> Tensor:
    """Indices of the objects of the given clips; ``clip_of`` (N,) is the clip of each object.

    Example:
        >>> columns_of_clips(torch.tensor([0, 0, 2, 3]), [0, 3])
        tensor([0, 1, 3])
    """
    return torch.isin(clip_of, torch.tensor(clips, dtype=torch.int64)).nonzero()[:, 0]


def clip_of_object(targets: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Index of each object's clip, for all objects of a batch, (N,), int64, on the CPU.

    Example:
        >>> clip_of_object([{"labels": torch.zeros(2)}, {"labels": torch.zeros(1)}])
        tensor([0, 0, 1])
    """
    sizes = torch.tensor([len(target["labels"]) for target in targets])
    return torch.repeat_interleave(torch.arange(len(sizes)), sizes)


def matched_masks(
    layers: Sequence[Mapping[str, Tensor]], clips: Tensor, queries: Tensor, anchor: Tensor
) -> MatchedMasks:
    """Mask logits of the query of each object.

    Args:
        layers: K decoder outputs.
        clips: Index of each object's clip, (N,), int64, ascending, on the CPU.
        queries: (K, N), -1 where an object has no query.
        anchor: Zeros with a gradient path, (K,).
    """
    # Convert to float32 here, so that mask gradients do not pass through half precision.
    logits = at_least_float32(of_queries(layers, "pred_masks", queries, clips))
    if "mask_embed" in layers[0]:
        features = layers[0]["mask_features"]
        logits = ProductGradient.apply(
            of_queries(layers, "mask_embed", queries, clips),
            features,
            logits,
            torch.bincount(clips, minlength=len(features)).tolist(),
        )
    return MatchedMasks(logits, (queries >= 0).to(logits.dtype), clips, anchor)


class ProductGradient(torch.autograd.Function):
    """Attach the gradient of (embeddings x features) to mask logits that exist already.

    The decoder multiplies the embeddings of all queries with the features without a graph. This
    function gives the few matched queries their gradient, and does not repeat the product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        mask_features: Tensor,
        logits: Tensor,
        sizes: list[int],
    ) -> Tensor:
        """Return the logits unchanged.

        Args:
            ctx: Stores embeddings and features for the backward pass.
            embeddings: Mask embeddings, (K, N, D), the objects of one clip after the other.
            mask_features: (B, D, T, h, w).
            logits: Their product, (K, N, T, h, w).
            sizes: Number of objects of each of the B clips.
        """
        ctx.save_for_backward(embeddings, mask_features)
        ctx.sizes = sizes
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients with respect to embeddings and features."""
        embeddings, mask_features = ctx.saved_tensors
        # under autocast embeddings and features may have different precisions
        factors = at_least_float32(embeddings), at_least_float32(mask_features)
        of_embeddings = torch.zeros_like(factors[0])
        of_features = torch.empty_like(factors[1], memory_format=torch.contiguous_format)
        start = 0
        for size, features, gradient in zip(
            ctx.sizes, factors[1].flatten(2), of_features.flatten(2), strict=True
        ):
            if size == 0:
                gradient.zero_()
                continue
            rows = slice(start, start + size)
            start += size
            of_clip = upstream[:, rows].reshape(-1, features.shape[1]).to(features.dtype)
            own = factors[0][:, rows].reshape(len(of_clip), -1)
            torch.mm(own.t().contiguous(), of_clip, out=gradient)
            of_embeddings[:, rows] = (of_clip @ features.t()).view_as(of_embeddings[:, rows])
        return of_embeddings.to(embeddings.dtype), of_features.to(mask_features.dtype), None, None
