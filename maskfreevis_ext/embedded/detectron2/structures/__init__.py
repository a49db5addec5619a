"""Boxes, masks and the objects of an image."""

from detectron2.structures.boxes import Boxes, BoxMode
from detectron2.structures.instances import Instances
from detectron2.structures.masks import BitMasks

__all__ = ["BitMasks", "BoxMode", "Boxes", "Instances"]
