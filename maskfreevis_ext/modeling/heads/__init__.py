"""Auxiliary heads of the decoder, beside classes and masks; one file per head.

Importing this package imports every module of the folder, which registers the heads that the
modules define.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from maskfreevis_ext.losses.term import LossTerm
from maskfreevis_ext.modeling.heads.base import AUX_HEAD_REGISTRY, AuxHead

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["AUX_HEAD_REGISTRY", "AuxHead", "build_heads", "terms_of_heads"]


def _enabled(cfg: Any) -> list[type[AuxHead]]:
    """Classes of the heads that a config switches on."""
    return [head for _, head in AUX_HEAD_REGISTRY if head.is_enabled(cfg)]


def build_heads(cfg: Any, in_channels: int) -> dict[str, AuxHead]:
    """Build the heads that a config switches on; the decoder stores them under these names.

    Args:
        cfg: The config.
        in_channels: Channels of the maps of the pixel decoder.
    """
    return {head.name: head(**head.from_config(cfg, in_channels)) for head in _enabled(cfg)}


def terms_of_heads(cfg: Any) -> list[LossTerm]:
    """The loss terms of the heads that a config switches on."""
    return [term for head in _enabled(cfg) for term in head.loss_terms(cfg)]
