"""Data sets by name, loaders, and what mappers need."""

from detectron2.data import transforms  # isort: skip
from detectron2.data.build import build_detection_test_loader, build_detection_train_loader
from detectron2.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.common import DatasetFromList, MapDataset

__all__ = [
    "DatasetCatalog",
    "DatasetFromList",
    "MapDataset",
    "Metadata",
    "MetadataCatalog",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "transforms",
]
