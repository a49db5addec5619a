"""Layers that models are built from."""

from detectron2.layers.batch_norm import FrozenBatchNorm2d, LayerNorm, get_norm
from detectron2.layers.blocks import CNNBlockBase
from detectron2.layers.shape_spec import ShapeSpec
from detectron2.layers.wrappers import Conv2d

__all__ = [
    "CNNBlockBase",
    "Conv2d",
    "FrozenBatchNorm2d",
    "LayerNorm",
    "ShapeSpec",
    "get_norm",
]
