"""Base class of backbones."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any

from detectron2.layers import ShapeSpec
from torch import Tensor, nn


class Backbone(nn.Module, metaclass=ABCMeta):
    """Turns images into named feature maps.

    A subclass sets ``_out_features`` (names), ``_out_feature_channels`` and
    ``_out_feature_strides`` (name -> int), or overrides ``output_shape``.
    """

    _out_features: Sequence[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, *args: Any) -> dict[str, Tensor]:
        """[N, C, H, W] -> name -> [N, C_i, H_i, W_i]."""

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this; 0 for no constraint."""
        return 0

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature map."""
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }
