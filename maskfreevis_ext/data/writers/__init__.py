"""Writers of annotation formats: one file a format, all from ``data/annotation_form.py``."""

from __future__ import annotations

import importlib
import pkgutil

from maskfreevis_ext.data.writers.options import WRITERS, WriteOptions

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")  # each registers its writer

__all__ = ["WRITERS", "WriteOptions"]
