"""Video data: YouTube-VIS files, registrations, clips, augmentation, mappers and loaders."""

from __future__ import annotations

from maskfreevis_ext.data import builtin  # noqa: F401  registers the public data sets
from maskfreevis_ext.data.builtin import register_from_config
from maskfreevis_ext.data.frame_files import check_images
from maskfreevis_ext.data.loaders import build_test_loader, build_train_loader
from maskfreevis_ext.data.mappers import YTVISDatasetMapper
from maskfreevis_ext.data.registration import register_ytvis_instances
from maskfreevis_ext.data.ytvis import load_ytvis_json

__all__ = [
    "YTVISDatasetMapper",
    "build_test_loader",
    "build_train_loader",
    "check_images",
    "load_ytvis_json",
    "register_from_config",
    "register_ytvis_instances",
]
