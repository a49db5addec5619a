"""One mask from what a clip's pixel head and a trained model say.

N objects, T frames, S x S cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_EPS = 1e-3
_LEAST_AGREEMENT = 0.5


@dataclass(frozen=True)
class Predicted:
    """What a model says about the objects in their windows.

    Attributes:
        probabilities: (N, T, S, S) float32 in [0, 1].
        agreement: IoU of the tight boxes of the model's masks with the given boxes, (N, T); 0 where
            the model has no mask.
    """

    probabilities: Tensor
    agreement: Tensor

    def select(self, objects: Sequence[int], frames: slice) -> Predicted:
        """What is said about some objects and frames."""
        chosen = list(objects)
        return Predicted(self.probabilities[chosen, frames], self.agreement[chosen, frames])


def join_predictions(raw: Tensor, predicted: Predicted) -> Tensor:
    """Mean of the logits where the box of the model's mask agrees with the given one.

    Args:
        raw: Probabilities of the pixel head, (N, T, S, S).
        predicted: What the model says.

    Returns:
        (N, T, S, S); where box IoUs are below 0.5, ``raw``.
    """
    logits = [torch.logit(x, _EPS) for x in (raw, predicted.probabilities)]
    is_used = (predicted.agreement >= _LEAST_AGREEMENT)[..., None, None]
    return torch.where(is_used, ((logits[0] + logits[1]) / 2).sigmoid(), raw)
