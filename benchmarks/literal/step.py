"""Literal parts for a model: a criterion that is called as the package's, and the attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .criterion import Match, literal_losses
from .deform_attn import grid_sample_attention
from .matching import fill_boxes


def with_filled_boxes(
    targets: Sequence[Mapping[str, Tensor]], image_size: tuple[int, int]
) -> list[dict[str, Tensor]]:
    """Targets with their filled boxes as ``masks``, (N, T, H, W)."""
    return [
        {
            **target,
            "masks": fill_boxes(target["boxes"].cpu(), image_size).to(target["boxes"].device),
        }
        for target in targets
    ]


def weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Each loss times the weight of its term; ``loss_ce_3`` has the weight of ``loss_ce``."""

    def term(name: str) -> str:
        head, _, index = name.rpartition("_")
        return head if index.isdigit() else name

    return {name: value * weights[term(name)] for name, value in losses.items()}


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of the losses."""
    return torch.stack(list(losses.values())).sum()


class LiteralCriterion(nn.Module):
    """``literal_losses`` with weights, in the place of a model's criterion.

    Attributes:
        matches: Assignment to use instead of the literal matching; None: match.
    """

    def __init__(
        self, weights: Mapping[str, float], pairs: Sequence[tuple[int, int]], num_points: int
    ) -> None:
        """Make the criterion.

        Args:
            weights: Weight of each term.
            pairs: Frame pairs of the temporal term.
            num_points: Points per frame of the matching.
        """
        super().__init__()
        self.weights = dict(weights)
        self.pairs = list(pairs)
        self.num_points = num_points
        self.matches: list[list[Match]] | None = None

    def forward(
        self,
        outputs: dict,
        targets: Sequence[Mapping[str, Tensor]],
        frames: Tensor,
        **_: object,
    ) -> dict[str, Tensor]:
        """Weighted losses; other arguments of the package's criterion play no part here."""
        filled = with_filled_boxes(targets, (frames.shape[-2], frames.shape[-1]))
        losses = literal_losses(outputs, filled, frames, self.pairs, self.num_points, self.matches)
        return weighted(losses, self.weights)


class GridSampleMSDeformAttn(nn.Module):
    """The deformable attention layer of the pixel decoder, sampling by ``F.grid_sample``.

    Takes over the linear layers of another one (Deformable DETR, arXiv 2010.04159, section 4.1).
    """

    def __init__(
        self,
        *,
        num_heads: int,
        num_levels: int,
        num_points: int,
        sampling_offsets: nn.Linear,
        attention_weights: nn.Linear,
        value_proj: nn.Linear,
        output_proj: nn.Linear,
    ) -> None:
        """Take the sizes and the linear layers."""
        super().__init__()
        self.shape = (num_heads, num_levels, num_points)
        self.sampling_offsets = sampling_offsets
        self.attention_weights = attention_weights
        self.value_proj = value_proj
        self.output_proj = output_proj

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        tokens: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Queries (B, L, D) at (x, y) in [0, 1] (L, 2) attend to tokens (B, S, D); (B, L, D)."""
        heads, levels, points = self.shape
        value = self.value_proj(tokens).unflatten(2, (heads, -1))
        offsets = self.sampling_offsets(query).unflatten(2, (*self.shape, 2))
        weights = self.attention_weights(query).unflatten(2, (heads, levels * points))
        weights = weights.softmax(-1).unflatten(3, (levels, points))
        cells = reference_points.new_tensor([(width, height) for height, width in spatial_shapes])
        # repeated, since PyTorch divides five times slower by a tensor with broadcast inner axes
        cells = cells[:, None].repeat(heads, 1, points, 1)  # (heads, K, P, 2)
        locations = reference_points[:, None, None, None] + offsets / cells
        sampled = grid_sample_attention(value, spatial_shapes, locations, weights)
        return self.output_proj(sampled)
