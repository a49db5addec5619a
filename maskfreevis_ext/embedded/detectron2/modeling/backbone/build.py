"""Backbones by name."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.utils.registry import Registry

#: Backbones; each takes the config and the ``ShapeSpec`` of the image.
BACKBONE_REGISTRY = Registry("BACKBONE")


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build ``MODEL.BACKBONE.NAME``.

    Args:
        cfg: The config.
        input_shape: Shape of the image; by default it has as many channels as ``MODEL.PIXEL_MEAN``.

    Raises:
        AssertionError: The registered function built something else than a ``Backbone``.
        KeyError: The name is not registered.
    """
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    backbone = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, input_shape)
    if not isinstance(backbone, Backbone):
        raise AssertionError(f"{cfg.MODEL.BACKBONE.NAME} built a {type(backbone)}, not a Backbone.")
    return backbone
