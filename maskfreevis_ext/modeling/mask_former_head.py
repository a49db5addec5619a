"""The head of the network: pixel decoder and video decoder, chosen by their registered names."""

from __future__ import annotations

from typing import cast

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.utils.registry import Registry
from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.modeling.heads import AuxHead
from maskfreevis_ext.modeling.pixel_decoder import PIXEL_DECODER_REGISTRY
from maskfreevis_ext.modeling.transformer_decoder import TRANSFORMER_DECODER_REGISTRY


def _registered(registry: Registry, name: str, key: str) -> type[nn.Module]:
    """The class with this name; raises a ConfigError that lists the names that ``key`` may have."""
    if name not in registry:
        allowed = ", ".join(sorted(known for known, _ in registry))
        raise ConfigError(f"{key} must be one of {allowed}, got {name!r}.")
    return registry.get(name)


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(nn.Module):
    """Backbone maps of B clips → class and mask logits of Q objects for each clip."""

    @configurable
    def __init__(self, *, pixel_decoder: nn.Module, predictor: nn.Module) -> None:
        """Make the head.

        Args:
            pixel_decoder: Backbone maps → (mask features, encoded maps), frame by frame.
            predictor: (encoded maps, mask features, T, return_aux) → outputs.
        """
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, nn.Module]:
        """Build the parts.

        Raises:
            ConfigError: A name is not registered, or the backbone lacks a map that the head needs.
        """
        head = cfg.MODEL.SEM_SEG_HEAD
        missing = [name for name in head.IN_FEATURES if name not in input_shape]
        if missing:
            raise ConfigError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES names {missing}, but the backbone gives "
                f"{sorted(input_shape)} (MODEL.RESNETS.OUT_FEATURES, MODEL.SWIN.OUT_FEATURES)."
            )
        pixel_decoder = _registered(
            PIXEL_DECODER_REGISTRY, head.PIXEL_DECODER_NAME, "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME"
        )
        predictor = _registered(
            TRANSFORMER_DECODER_REGISTRY,
            cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME,
            "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME",
        )
        return {
            "pixel_decoder": pixel_decoder(cfg, input_shape),
            "predictor": predictor(cfg, head.CONVS_DIM),
        }

    @property
    def heads(self) -> dict[str, AuxHead]:
        """The auxiliary heads of the decoder by name."""
        return cast("dict[str, AuxHead]", self.predictor.heads)

    def forward(
        self,
        features: dict[str, Tensor],
        num_frames: int,
        return_aux: bool = False,
        num_views: int | None = None,
    ) -> dict[str, Tensor | list[dict[str, Tensor]]]:
        """Predict the objects of B clips of T frames.

        Args:
            features: Name → backbone map, (B * T, channels, h, w); the frames of a clip stand
                together.
            num_frames: T.
            return_aux: Also return ``aux_outputs``.
            num_views: Number of cameras of a clip; see the decoder.

        Returns:
            ``pred_logits`` (B, Q, C + 1), ``pred_masks`` (B, Q, T, H/4, W/4) and, if asked for,
            ``aux_outputs``.
        """
        mask_features, maps = self.pixel_decoder(features)
        return self.predictor(maps, mask_features, num_frames, return_aux, num_views)
