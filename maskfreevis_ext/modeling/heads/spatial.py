"""The spatial mask head in the video decoder: it predicts one mask and biases every layer.

Shape letters: B clips, T frames, S = T * h * w tokens of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskfreevis_ext.losses.scene import Scene
from maskfreevis_ext.losses.spatial import (
    SPATIAL_INPUTS,
    SpatialMaskLossSettings,
    spatial_inputs,
    spatial_terms,
)
from maskfreevis_ext.losses.term import LossTerm
from maskfreevis_ext.modeling.heads.base import (
    AUX_HEAD_REGISTRY,
    AuxHead,
    HeadOutputs,
)
from maskfreevis_ext.modeling.heads.spatial_mask import SpatialMaskHead, fold_frames
from maskfreevis_ext.modeling.spatial_targets import build_spatial_targets
from maskfreevis_ext.ops.clip import FrameSizes, frame_probabilities


@dataclass(frozen=True)
class LayerBiases:
    """Attention bias of every decoder layer.

    Attributes:
        of_levels: For each level, the bias of its keys, (B, S).
        strengths: For each decoder layer, the factor on the bias; None for a layer without bias.
    """

    of_levels: list[Tensor]
    strengths: list[Tensor | float | None]

    def of_layer(self, layer: int, level: int) -> Tensor | None:
        """Bias of the keys for decoder layer ``layer`` and map ``level``, (B, S), or None."""
        strength = self.strengths[layer]
        return None if strength is None else strength * self.of_levels[level]


@AUX_HEAD_REGISTRY.register()
class SpatialBias(AuxHead):
    """The spatial mask head with its input level and the decoder layers that it biases."""

    name = "spatial_bias"

    def __init__(
        self,
        head: SpatialMaskHead,
        in_level: int,
        num_layers: int,
        layers: Sequence[int] = (),
        gated: bool = False,
        mask_stride: int = 4,
        is_supervised: bool = True,
    ) -> None:
        """Keep the parts.

        Args:
            head: The head.
            in_level: Index of its input among the maps of the pixel decoder, coarse first.
            num_layers: Number of decoder layers.
            layers: Indices of the decoder layers with a bias; empty: all.
            gated: Multiply the bias of each layer by a learned factor in (0, 1), 0.5 at the start.
            mask_stride: Pixels per cell of the targets of the mask.
            is_supervised: Whether the mask has loss terms, which need targets.
        """
        super().__init__()
        self.head = head
        self.in_level = in_level
        self.layers = frozenset(layers) or frozenset(range(num_layers))
        self.num_layers = num_layers
        self.mask_stride = mask_stride
        self.is_supervised = is_supervised
        self.gates = nn.Parameter(torch.zeros(num_layers)) if gated else None

    @classmethod
    def is_enabled(cls, cfg: Any) -> bool:
        """``MODEL.SPATIAL_MASK.ENABLED``."""
        return cfg.MODEL.SPATIAL_MASK.ENABLED

    @classmethod
    def from_config(cls, cfg: Any, in_channels: int) -> dict[str, Any]:
        """Arguments of ``__init__``, from ``MODEL.SPATIAL_MASK``."""
        node, decoder = cfg.MODEL.SPATIAL_MASK, cfg.MODEL.SEM_SEG_HEAD
        # coarse first, as the pixel decoder outputs its maps; the config may name them in any order
        levels = sorted(decoder.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES, reverse=True)
        return {
            "head": SpatialMaskHead(**SpatialMaskHead.from_config(cfg, in_channels)),
            "in_level": levels.index(node.IN_LEVEL),
            "num_layers": cfg.MODEL.MASK_FORMER.DEC_LAYERS - 1,
            "layers": node.LAYERS,
            "gated": node.ROWS == "gate",
            "mask_stride": decoder.COMMON_STRIDE,
            "is_supervised": node.LOSS.ENABLED,
        }

    @classmethod
    def loss_terms(cls, cfg: Any) -> list[LossTerm]:
        """Loss terms of the mask; none with MODEL.SPATIAL_MASK.LOSS.ENABLED False."""
        if not cfg.MODEL.SPATIAL_MASK.LOSS.ENABLED:
            return []
        return spatial_terms(SpatialMaskLossSettings(**SpatialMaskLossSettings.from_config(cfg)))

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: a gate of 0 is not neutral, it means a factor of 0.5."""
        return {"gates"}

    def forward(
        self, maps: Sequence[Tensor], num_frames: int, num_views: int | None = None
    ) -> HeadOutputs:
        """Predict the mask from one level, and resize its bias to all levels.

        Args:
            maps: Encoded maps, coarse first, (B * T, channels, h_k, w_k).
            num_frames: Frames of a clip; with views, the frames of all views together, time first.
            num_views: V, number of cameras of a clip; None: one camera, and no axis for views.

        Raises:
            ValueError: The frames are not a multiple of the views.
        """
        if num_frames % (num_views or 1):
            raise ValueError(f"{num_frames} frames are not a multiple of {num_views} views")
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
        return HeadOutputs({"mask_logits": mask_logits}, LayerBiases(of_levels, strengths))

    def prepare(self, scene: Scene) -> None:
        """Store the mask and its targets in the scene for the loss terms."""
        if not self.is_supervised:
            return
        mask_logits = scene.layers[0]["mask_logits"]
        found = build_spatial_targets(
            scene.batch,
            scene.targets,
            scene.image_size,
            self.mask_stride,
            mask_logits.shape[2] if mask_logits.dim() == 5 else None,
            mask_logits.device,
        )
        inputs = spatial_inputs(mask_logits, found.masks, found.valid, found.weak)
        scene.give(SPATIAL_INPUTS, inputs)

    def results(self, outputs: dict[str, Tensor], sizes: FrameSizes) -> dict[str, Any]:
        """``dynamic_mask``: probabilities of the mask at the size of the video, uint8."""
        return {"dynamic_mask": frame_probabilities(outputs["mask_logits"], *sizes)}

    def reset_schedule(self, step: int) -> None:
        """Set the step of the schedule that fades the bias."""
        self.head.set_step(step)
