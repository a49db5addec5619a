"""Readers of annotation formats: one file a format, all into ``data/annotation_form.py``."""

from __future__ import annotations

import importlib
import pkgutil

from maskfreevis_ext.data.readers.options import READERS, ReadOptions, read_annotations

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")  # each registers its reader

__all__ = ["READERS", "ReadOptions", "read_annotations"]
