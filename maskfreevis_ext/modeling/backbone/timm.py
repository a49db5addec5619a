"""Backbones of the library timm (PyTorch Image Models) under Detectron2's names."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError

_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


class TimmBackbone(Backbone):
    """Feature maps of a timm model.

    Args:
        name: A timm model that can be built with ``features_only``.
        out_features: Names of the outputs, out of res2, res3, res4, res5 (strides 4, 8, 16, 32).
        pretrained: Fetch timm's weights, which may be a download.

    Raises:
        ConfigError: timm cannot be imported, does not know the model, or the model has no map of
            one of the strides.
    """

    def __init__(
        self, name: str, out_features: Sequence[str] = tuple(_STRIDES), pretrained: bool = False
    ) -> None:
        super().__init__()
        unknown = [feature for feature in out_features if feature not in _STRIDES]
        if unknown or not out_features:
            raise ConfigError(
                f"MODEL.TIMM.OUT_FEATURES: expected some of {', '.join(_STRIDES)}, "
                f"got {list(out_features)}."
            )
        self.model = _create(name, pretrained)
        strides, channels = _strides_and_channels(self.model)
        self._out_features = [feature for feature in _STRIDES if feature in out_features]
        missing = [f for f in self._out_features if _STRIDES[f] not in strides]
        if missing:
            raise ConfigError(
                f"MODEL.TIMM.NAME {name!r}: expected feature maps of the strides "
                f"{[_STRIDES[f] for f in missing]}, got {strides}. Choose another model, or other "
                "MODEL.TIMM.OUT_FEATURES."
            )
        # of several maps of a stride the last is the deepest
        self._index = {
            f: len(strides) - 1 - strides[::-1].index(_STRIDES[f]) for f in self._out_features
        }
        self._out_feature_channels = {f: channels[i] for f, i in self._index.items()}
        self._out_feature_strides = {f: _STRIDES[f] for f in self._out_features}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Name -> map (N, C, H / stride, W / stride), of normalised images (N, 3, H, W)."""
        maps = self.model(images)
        outputs = {}
        for name, index in self._index.items():
            x, channels = maps[index], self._out_feature_channels[name]
            if x.shape[1] != channels and x.shape[-1] == channels:
                x = x.permute(0, 3, 1, 2).contiguous()  # Swin and its kin put channels last
            outputs[name] = x
        return outputs

    @property
    def size_divisibility(self) -> int:
        """Largest stride of the outputs."""
        return max(self._out_feature_strides.values())


def _strides_and_channels(model: Any) -> tuple[list[int], list[int]]:
    """What a model of timm says of its feature maps; timm has no type for such models."""
    info = model.feature_info
    return list(info.reduction()), list(info.channels())


def _create(name: str, pretrained: bool) -> nn.Module:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise ConfigError(
            "MODEL.BACKBONE.NAME 'build_timm_backbone': expected the library timm, got "
            f"{str(error)!r}. Install it (pip install timm), or choose another backbone."
        ) from error
    try:
        return timm.create_model(name, pretrained=pretrained, features_only=True)
    except (RuntimeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"MODEL.TIMM.NAME: expected a timm model that gives feature maps, got {name!r} "
            f"({error}). timm.list_models() lists the names."
        ) from error


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """Build ``TimmBackbone`` from ``MODEL.TIMM``; ``input_shape`` is unused (3 channels).

    Raises:
        ConfigError: As ``TimmBackbone``.
    """
    timm = cfg.MODEL.TIMM
    return TimmBackbone(timm.NAME, timm.OUT_FEATURES, timm.PRETRAINED and not cfg.MODEL.WEIGHTS)
