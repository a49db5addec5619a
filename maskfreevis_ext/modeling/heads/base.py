"""The interface of an auxiliary head: read the encoded maps, add losses, change results.

Decoder, model, criterion and trainer loop over the heads and know none by name. Every method but
``is_enabled`` and ``from_config`` has a default that does nothing; a head overrides what it needs.
Shape letters: B clips, T frames, Q queries, N kept queries, S tokens of a level, (h, w) map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from fvcore.common.registry import Registry
from torch import Tensor, nn

from maskfreevis_ext.losses.scene import Scene
from maskfreevis_ext.losses.term import LossTerm
from maskfreevis_ext.ops.clip import FrameSizes

AUX_HEAD_REGISTRY = Registry("AUX_HEAD")
AUX_HEAD_REGISTRY.__doc__ = "Auxiliary heads; each is built if the config switches it on."


class LayerBias(Protocol):
    """An attention bias, which lowers the attention to a part of the cells."""

    def of_layer(self, layer: int, level: int) -> Tensor | None:
        """Bias of the keys for decoder layer ``layer`` and map ``level``, (B, S), or None."""


@dataclass(frozen=True)
class HeadOutputs:
    """Outputs of a head for the encoded maps of a batch.

    Attributes:
        outputs: Entries to add to the decoder's output dict.
        bias: Attention bias of the decoder layers, or None.
    """

    outputs: dict[str, Tensor] = field(default_factory=dict)
    bias: LayerBias | None = None


@dataclass(frozen=True)
class Rating:
    """Masks and score factors of the kept queries of a clip, as rated by a head.

    Attributes:
        masks: Mask logits to show, (N, T, h, w).
        factor: Factor on the score of each query, (N,), in [0, 1].
    """

    masks: Tensor
    factor: Tensor


class AuxHead(nn.Module):
    """Base class of the auxiliary heads.

    Attributes:
        name: Attribute of the decoder that holds the head, and so the prefix of its parameters.
        needs_embeddings: Whether the decoder must add ``queries`` and ``mask_embed`` to each output
            and ``mask_features`` to the last one, in evaluation too.
    """

    name: ClassVar[str]
    needs_embeddings: ClassVar[bool] = False

    @classmethod
    def is_enabled(cls, cfg: Any) -> bool:
        """Whether the config switches the head on."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> dict[str, Any]:
        """Arguments of ``__init__``; ``in_channels`` is the width of the encoded maps."""
        raise NotImplementedError

    @classmethod
    def loss_terms(cls, cfg: Any) -> list[LossTerm]:
        """Loss terms of the head; a term with the name of a standard term replaces it."""
        return []

    def forward(
        self, maps: Sequence[Tensor], num_frames: int, num_views: int | None = None
    ) -> HeadOutputs:
        """Process the encoded maps of the pixel decoder, before the decoder layers run.

        Args:
            maps: Encoded maps, coarse first, (B * T, channels, h_k, w_k).
            num_frames: T; with views, the frames of all views together, time first.
            num_views: Number of cameras of a clip; None: one camera, and no axis for views.
        """
        return HeadOutputs()

    def prepare(self, scene: Scene) -> None:
        """Store in the scene what the head's loss terms need; called before the terms count."""

    def choose(
        self, scene: Scene, terms: Sequence[LossTerm], normalizers: dict[str, Tensor]
    ) -> None:
        """Choose between mask hypotheses; called when the normalizers of all terms are known."""

    def rate(self, outputs: dict[str, Tensor], kept: Tensor) -> Rating | None:
        """Masks and score factors of the kept queries of one clip; None: the head has none.

        Args:
            outputs: Outputs of the decoder without their batch axis.
            kept: (N,), int64.
        """
        return None

    def results(self, outputs: dict[str, Tensor], sizes: FrameSizes) -> dict[str, Any]:
        """Entries to add to the result of one video.

        Each has one value per frame, as a list or along the first axis of a tensor, so that the
        frames of several windows can be joined.

        Args:
            outputs: Outputs of the decoder without their batch axis.
            sizes: Sizes of the video's frames.
        """
        return {}

    def reset_schedule(self, step: int) -> None:
        """Set schedules that count training steps to a step; checkpoints contain their counters."""
