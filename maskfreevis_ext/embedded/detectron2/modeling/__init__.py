"""Registries of models, and the ResNet backbone."""

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import (
    BACKBONE_REGISTRY,
    Backbone,
    ResNet,
    build_backbone,
    build_resnet_backbone,
)
from detectron2.modeling.meta_arch import (
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    build_model,
    build_sem_seg_head,
)

__all__ = [
    "BACKBONE_REGISTRY",
    "META_ARCH_REGISTRY",
    "SEM_SEG_HEADS_REGISTRY",
    "Backbone",
    "ResNet",
    "ShapeSpec",
    "build_backbone",
    "build_model",
    "build_resnet_backbone",
    "build_sem_seg_head",
]
