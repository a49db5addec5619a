"""Auxiliary heads of the decoder, beside classes and masks; one file per head.

Importing this package imports every module of the folder, which registers the heads that the
modules define.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from maskfreevis_ext.losses.term import LossTerm
from maskfreevis_ext.modeling.heads.base import AUX_HEAD_REGISTRY, AuxHead, Rating

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["AUX_HEAD_REGISTRY", "AuxHead", "build_heads", "rate_queries", "terms_of_heads"]


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


def rate_queries(heads: Iterable[AuxHead], outputs: dict[str, Tensor], kept: Tensor) -> Rating:
    """Masks of the kept queries of a clip, and the product of the factors of all heads.

    Args:
        heads: The heads; the last one that has masks gives them, without any the decoder does.
        outputs: Outputs of the decoder without their batch axis.
        kept: Indices of queries, (N,), int64.
    """
    masks = outputs["pred_masks"][kept]
    factor = masks.new_ones(kept.shape[0], dtype=torch.float32)
    for head in heads:
        rating = head.rate(outputs, kept)
        if rating is not None:
            masks, factor = rating.masks, factor * rating.factor
    return Rating(masks, factor)
