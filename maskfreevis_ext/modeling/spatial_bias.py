"""The spatial mask head in the video decoder: one mask, an attention bias for every layer.

Shape letters: B clips, T frames, S = T * h * w tokens of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.modeling.spatial_mask_head import SpatialMaskHead, fold_frames


@dataclass(frozen=True)
class LayerBiases:
    """What the head found in a batch.

    Attributes:
        mask_logits: (B, T, h, w), or (B, T, V, h, w) with V views.
        of_levels: Bias of the keys of each level, (B, S) each.
        strengths: Factor of each decoder layer; None where a layer has no bias.
    """

    mask_logits: Tensor
    of_levels: list[Tensor]
    strengths: list[Tensor | float | None]

    def of_layer(self, layer: int, level: int) -> Tensor | None:
        """Bias of the keys of a layer that looks at a level, (B, S), or None."""
        strength = self.strengths[layer]
        return None if strength is None else strength * self.of_levels[level]


class SpatialBias(nn.Module):
    """The head, the level that it looks at, and the layers that its bias goes to."""

    def __init__(
        self,
        head: SpatialMaskHead,
        in_level: int,
        num_layers: int,
        layers: Sequence[int] = (),
        gated: bool = False,
    ) -> None:
        """Take the parts.

        Args:
            head: The head.
            in_level: Index of its level in the maps of the pixel decoder, coarse first.
            num_layers: Layers of the decoder.
            layers: Those that are biased; none: all.
            gated: Multiply the bias of each layer by the sigmoid of a learned number, 0.5 at first.
        """
        super().__init__()
        self.head = head
        self.in_level = in_level
        self.layers = frozenset(layers) or frozenset(range(num_layers))
        self.num_layers = num_layers
        self.gates = nn.Parameter(torch.zeros(num_layers)) if gated else None

    @classmethod
    def from_config(cls, cfg: CfgNode, channels: int) -> SpatialBias:
        """Build it from ``MODEL.SPATIAL_MASK``.

        Raises:
            ConfigError: IN_LEVEL is no level of the pixel decoder, LAYERS names a layer that is not
                there, or HOLD_END comes before HOLD_START.
        """
        node = cfg.MODEL.SPATIAL_MASK
        # coarse first, like the maps of the pixel decoder, in whatever order they are named
        levels = sorted(
            cfg.MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES, reverse=True
        )
        if node.IN_LEVEL not in levels:
            raise ConfigError(
                f"MODEL.SPATIAL_MASK.IN_LEVEL is one of {levels} "
                "(MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES), "
                f"got {node.IN_LEVEL!r}"
            )
        num_layers = cfg.MODEL.MASK_FORMER.DEC_LAYERS - 1
        wrong = [layer for layer in node.LAYERS if layer not in range(num_layers)]
        if wrong:
            raise ConfigError(
                f"MODEL.SPATIAL_MASK.LAYERS: expected layers 0 to {num_layers - 1} "
                f"(MODEL.MASK_FORMER.DEC_LAYERS - 2), got {wrong}"
            )
        if node.HOLD_END < node.HOLD_START:
            raise ConfigError(
                f"MODEL.SPATIAL_MASK.HOLD_END: expected {node.HOLD_START} (HOLD_START) or more, "
                f"got {node.HOLD_END}"
            )
        return cls(
            SpatialMaskHead.from_config(cfg, channels),
            in_level=levels.index(node.IN_LEVEL),
            num_layers=num_layers,
            layers=node.LAYERS,
            gated=node.ROWS == "gate",
        )

    def no_weight_decay(self) -> set[str]:
        """Parameters that the optimizer does not decay: a gate of 0 stands for a factor of 0.5."""
        return {"gates"}

    def forward(
        self, maps: Sequence[Tensor], num_frames: int, num_views: int | None = None
    ) -> LayerBiases:
        """Look at one level and bias all.

        Args:
            maps: Encoded maps, coarse first, (B * T, channels, h_k, w_k).
            num_frames: Frames of a clip; with views those of all, time first.
            num_views: V, cameras of a clip; None: one, without an axis.

        Raises:
            ValueError: The frames are not a multiple of the views.
        """
        if num_frames % (num_views or 1):
            raise ValueError(f"{num_frames} frames are not those of {num_views} views")
        if self.training:
            self.head.count_step()
        seen = maps[self.in_level]
        grid = (seen.shape[-2], seen.shape[-1])
        tokens = seen.flatten(2).transpose(1, 2).unflatten(0, (-1, num_frames))
        m_logit, own_bias, _ = self.head(tokens, grid)
        of_levels = []
        for level, level_map in enumerate(maps):
            if level == self.in_level:
                of_levels.append(own_bias)
                continue
            size = level_map.shape[-2:]
            resized = F.interpolate(m_logit, size=size, mode="bilinear", align_corners=False)
            of_levels.append(self.head.bias_of(resized).view(tokens.shape[0], -1))
        gates = None if self.gates is None else self.gates.sigmoid()
        strengths = [
            None if layer not in self.layers else 1.0 if gates is None else gates[layer]
            for layer in range(self.num_layers)
        ]
        mask_logits = fold_frames(m_logit, len(tokens), num_frames // (num_views or 1), num_views)
        return LayerBiases(mask_logits, of_levels, strengths)
