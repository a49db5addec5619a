"""What an auxiliary head can do: look at the maps, add losses, change results.

The decoder, the model, the criterion and the trainer go through a list of heads and know none by
name. Every method has a default that does nothing, so that a head writes only what it needs.
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
AUX_HEAD_REGISTRY.__doc__ = "Auxiliary heads; each is built where its config key switches it on."


class LayerBias(Protocol):
    """Where the queries of a decoder layer are to look less."""

    def of_layer(self, layer: int, level: int) -> Tensor | None:
        """Bias of the keys of a layer that looks at a level, (B, S), or None."""


@dataclass(frozen=True)
class HeadOutputs:
    """What a head finds in the maps of a batch.

    Attributes:
        outputs: Further entries of the decoder's output dict.
        bias: Attention bias of the decoder layers.
    """

    outputs: dict[str, Tensor] = field(default_factory=dict)
    bias: LayerBias | None = None


@dataclass(frozen=True)
class Rating:
    """What a head says of the kept queries of a clip.

    Attributes:
        masks: Mask logits to show, (N, T, h, w).
        factor: What the score of each query is multiplied by, (N,), in [0, 1].
    """

    masks: Tensor
    factor: Tensor


class AuxHead(nn.Module):
    """Base class of the auxiliary heads.

    Attributes:
        name: Attribute of the decoder that holds the head; its parameters have that prefix.
        needs_embeddings: Whether each output of the decoder must hold ``queries`` and
            ``mask_embed``, and the last one ``mask_features``, in evaluation too.
    """

    name: ClassVar[str]
    needs_embeddings: ClassVar[bool] = False

    @classmethod
    def is_enabled(cls, cfg: Any) -> bool:
        """Whether the config switches the head on."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> dict[str, Any]:
        """Arguments of ``__init__``; ``in_channels`` are those of the maps of the pixel decoder."""
        raise NotImplementedError

    @classmethod
    def loss_terms(cls, cfg: Any) -> list[LossTerm]:
        """Terms that the head adds; one with the name of a standard term takes its place."""
        return []

    def forward(
        self, maps: Sequence[Tensor], num_frames: int, num_views: int | None = None
    ) -> HeadOutputs:
        """Look at the maps of the pixel decoder, before the decoder's layers do.

        Args:
            maps: Encoded maps, coarse first, (B * T, channels, h_k, w_k).
            num_frames: T; with views the frames of all views, time first.
            num_views: Cameras of a clip; None: one, without an axis.
        """
        return HeadOutputs()

    def prepare(self, scene: Scene) -> None:
        """Leave on the scene what the head's loss terms need, before anything is counted."""

    def choose(
        self, scene: Scene, terms: Sequence[LossTerm], normalizers: dict[str, Tensor]
    ) -> None:
        """Choose between masks, once the normalizers of all terms are known."""

    def rate(self, outputs: dict[str, Tensor], kept: Tensor) -> Rating | None:
        """Masks and scores of the queries that are kept of one clip; None: no opinion.

        Args:
            outputs: Outputs of the decoder without their batch axis.
            kept: (N,), int64.
        """
        return None

    def results(self, outputs: dict[str, Tensor], sizes: FrameSizes) -> dict[str, Any]:
        """Further entries of the result of one video.

        Args:
            outputs: Outputs of the decoder without their batch axis.
            sizes: Sizes of its frames.
        """
        return {}

    def reset_schedule(self, step: int) -> None:
        """Set schedules that count training steps, which come with the weights, to a step."""
