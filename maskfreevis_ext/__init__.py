"""Box-supervised video instance segmentation for Detectron2.

The public names are listed in ``__all__``; every other name and module is internal and may change.
Import this package before ``detectron2``: importing it chooses which Detectron2 runs
(``maskfreevis_ext._provider``) and registers the models and data sets with it. OpenCV, SciPy, the
training engine and the predictor are imported when a name that needs them is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from maskfreevis_ext import errors
from maskfreevis_ext._provider import select_provider
from maskfreevis_ext.version import __version__

if TYPE_CHECKING:
    from maskfreevis_ext._provider import describe_provider as describe_provider
    from maskfreevis_ext._provider import provider_info as provider_info
    from maskfreevis_ext.config import add_maskfreevis_config, load_config
    from maskfreevis_ext.data.registration import register_ytvis_instances
    from maskfreevis_ext.engine.predict import build_predictor
    from maskfreevis_ext.inference.predictor import VideoPredictor

__all__ = [
    "VideoPredictor",
    "__version__",
    "add_maskfreevis_config",
    "build_predictor",
    "errors",
    "load_config",
    "register_ytvis_instances",
]

#: Name -> the module that defines it, imported at the first use of the name.
_LAZY = {
    "VideoPredictor": "maskfreevis_ext.inference.predictor",
    "add_maskfreevis_config": "maskfreevis_ext.config",
    "build_predictor": "maskfreevis_ext.engine.predict",
    "load_config": "maskfreevis_ext.config",
    "register_ytvis_instances": "maskfreevis_ext.data.registration",
    # internal, for the log of the tools and for the tests
    "describe_provider": "maskfreevis_ext._provider",
    "provider_info": "maskfreevis_ext._provider",
}

#: Subpackages that register something with Detectron2 when they are imported.
_REGISTERING = ("maskfreevis_ext.modeling", "maskfreevis_ext.data")


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    """The defined names and the public names that are imported at their first use."""
    return sorted({*globals(), *_LAZY})


def _register() -> None:
    """Import the subpackages that fill Detectron2's registries and catalogs."""
    for name in _REGISTERING:
        importlib.import_module(name)


select_provider()
_register()
