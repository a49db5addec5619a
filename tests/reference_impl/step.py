"""The literal criterion where a model expects its own: called alike, losses weighted alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .criterion import literal_losses
from .matching import fill_boxes


def with_filled_boxes(
    targets: list[dict[str, Tensor]], image_size: tuple[int, int]
) -> list[dict[str, Tensor]]:
    """Targets with their filled boxes as ``masks``, (N, T, H, W)."""
    return [
        {
            **target,
            "masks": fill_boxes(target["boxes"].cpu(), image_size).to(target["boxes"].device),
        }
        for target in targets
    ]


class LiteralCriterion(nn.Module):
    """``literal_losses`` with weights. ``matches``, where set, take the place of the matching."""

    def __init__(
        self, weights: Mapping[str, float], pairs: Sequence[tuple[int, int]], num_points: int
    ) -> None:
        """Take the weight of each term, the frame pairs, and the points of the matching."""
        super().__init__()
        self.weights = dict(weights)
        self.pairs = list(pairs)
        self.num_points = num_points
        self.matches: list | None = None

    def forward(
        self,
        outputs: dict,
        targets: list[dict[str, Tensor]],
        frames: Tensor,
        frame_sizes: Sequence[tuple[int, int]],
    ) -> dict[str, Tensor]:
        """Weighted losses; ``frame_sizes`` plays no part in the reference."""
        targets = with_filled_boxes(targets, tuple(frames.shape[-2:]))
        losses = literal_losses(outputs, targets, frames, self.pairs, self.num_points, self.matches)
        return {name: value * self.weights[_term(name)] for name, value in losses.items()}


def _term(name: str) -> str:
    """``loss_ce_3`` -> ``loss_ce``."""
    term, _, index = name.rpartition("_")
    return term if index.isdigit() else name


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of the losses."""
    return torch.stack(list(losses.values())).sum()
