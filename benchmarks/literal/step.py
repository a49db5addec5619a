"""A literal criterion for a model, called as the package's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .criterion import Match, literal_losses
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
