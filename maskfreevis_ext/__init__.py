"""Box-supervised video instance segmentation for Detectron2.

Importing this package picks the Detectron2 provider (see ``maskfreevis_ext._provider``) and
registers the project's models and data sets. Import it before ``detectron2``.
"""

from __future__ import annotations

import importlib

from maskfreevis_ext._provider import (
    ProviderInfo,
    describe_provider,
    provider_info,
    select_provider,
)

__all__ = ["ProviderInfo", "describe_provider", "provider_info"]

#: Subpackages that register something with Detectron2 when they are imported.
_REGISTERING = ("maskfreevis_ext.modeling", "maskfreevis_ext.data")


def _register() -> None:
    """Import the subpackages that fill Detectron2's registries and catalogs."""
    for name in _REGISTERING:
        importlib.import_module(name)


select_provider()
_register()
