"""The class term: every query predicts the class of its object, or "no object"."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.losses.scene import Scene
from maskfreevis_ext.losses.term import LOSS_TERM_REGISTRY, LossTerm


@LOSS_TERM_REGISTRY.register()
class ClassTerm(LossTerm):
    """Cross-entropy over all queries, a mean weighted by the weight of the target class.

    Cheng et al., "Masked-attention Mask Transformer", CVPR 2022 (arXiv:2112.01527), sec. 3.
    """

    name = "loss_ce"
    row = "MODEL.MASK_FORMER.CLASS_WEIGHT"

    def counts(self, scene: Scene) -> Tensor:
        """Sum of the weights of all queries, (K, 1)."""
        return self._weights(scene).sum((1, 2))[:, None]

    def sums(self, scene: Scene, normalizers: Tensor) -> Tensor:
        """Weighted mean of the cross-entropy, (K,)."""
        nll = F.cross_entropy(
            scene.class_logits.flatten(0, 2), scene.classes.flatten(), reduction="none"
        )
        weights = self._weights(scene)
        return (nll.view_as(weights) * weights).sum((1, 2)) / normalizers[:, 0]

    def floor(self, means: Tensor) -> Tensor:
        """The sum of weights; 1 where it is 0, as in an empty batch with NO_OBJECT_WEIGHT 0."""
        # not a tiny number, by which the gradient, scaled in mixed precision, would overflow
        return torch.where(means > 0, means, 1.0)

    @staticmethod
    def _weights(scene: Scene) -> Tensor:
        """Weight of the target class of each query, (K, B, Q)."""
        return scene.class_weights.to(scene.class_logits.dtype)[scene.classes]
