"""Transforms (done to an image, repeatable) and augmentations (which draw a transform)."""

from detectron2.data.transforms.augmentation import Augmentation
from detectron2.data.transforms.augmentation_impl import (
    RandomCrop,
    RandomFlip,
    RandomRotation,
    ResizeShortestEdge,
)
from detectron2.data.transforms.transform import ResizeTransform, RotationTransform
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

__all__ = [
    "Augmentation",
    "CropTransform",
    "HFlipTransform",
    "NoOpTransform",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "ResizeShortestEdge",
    "ResizeTransform",
    "RotationTransform",
    "Transform",
    "TransformList",
    "VFlipTransform",
]
