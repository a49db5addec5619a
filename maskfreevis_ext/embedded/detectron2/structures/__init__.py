"""Boxes, masks, instances and padded batches of images."""

from detectron2.structures.boxes import Boxes, BoxMode
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.structures.masks import BitMasks, PolygonMasks, polygons_to_bitmask

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "PolygonMasks",
    "polygons_to_bitmask",
]
