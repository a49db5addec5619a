"""How parts of the network run: memory format, compilation, activation checkpointing.

None of it changes names or values of weights, so that checkpoints fit with any of these settings.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase
from torch import nn
from torch.utils.checkpoint import checkpoint

from maskfreevis_ext.modeling.attention import CrossAttentionLayer, FFNLayer, SelfAttentionLayer
from maskfreevis_ext.modeling.backbone.efficientnet_lite import InvertedResidual
from maskfreevis_ext.modeling.pixel_decoder import DeformableEncoderLayer

logger = logging.getLogger(__name__)

#: Layers of which only the inputs are kept.
_LAYERS = (
    CNNBlockBase,
    InvertedResidual,
    DeformableEncoderLayer,
    CrossAttentionLayer,
    SelfAttentionLayer,
    FFNLayer,
)
_COMPILERS = ("g++", "clang++", "c++", "cl")


def set_execution(cfg: CfgNode, backbone: nn.Module, sem_seg_head: nn.Module) -> None:
    """Apply MODEL.MEMORY_FORMAT, MODEL.CHECKPOINTING and MODEL.COMPILE to a network, in place.

    Args:
        cfg: The config.
        backbone: The backbone.
        sem_seg_head: With ``pixel_decoder`` and ``predictor``.
    """
    parts: dict[str, nn.Module] = {
        "backbone": backbone,
        "pixel_decoder": sem_seg_head.get_submodule("pixel_decoder"),
        "decoder": sem_seg_head.get_submodule("predictor"),
    }
    if cfg.MODEL.MEMORY_FORMAT == "channels_last":
        for name in ("backbone", "pixel_decoder"):
            parts[name].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for name in cfg.MODEL.CHECKPOINTING:
        checkpoint_layers(parts[name])
    compile_parts(parts, cfg.MODEL.COMPILE, cfg.MODEL.DEVICE)


def map_format(cfg: CfgNode) -> torch.memory_format:
    """The memory format of the images, which all maps of the backbone take over.

    Args:
        cfg: The config.
    """
    asked, device = cfg.MODEL.MEMORY_FORMAT, torch.device(cfg.MODEL.DEVICE)
    is_last = asked == "channels_last" or (asked == "auto" and device.type == "cpu")
    return torch.channels_last if is_last else torch.contiguous_format


def checkpoint_layers(part: nn.Module) -> None:
    """Keep only the inputs of a part's layers in training; the rest is computed twice.

    Layers are the blocks of ResNet, EfficientNet-Lite, deformable encoder and video decoder. Swin
    and timm have checkpointing of their own. A part without any of these is one layer.

    Args:
        part: A part of the network; changed in place.
    """
    own: list[Any] = [m for m in part.modules() if hasattr(m, "use_checkpoint")]  # Swin
    for module in own:
        module.use_checkpoint = True
    timm: list[Any] = [m for m in part.modules() if hasattr(m, "set_grad_checkpointing")]
    if timm:
        timm[0].set_grad_checkpointing(True)
    if not own and not timm:
        for layer in list(_outermost_layers(part)) or [part]:
            # In the dict of the instance, where calls find it first; a copy of the module gets a
            # partial of its own bound method.
            layer.__dict__["forward"] = partial(_recomputed, layer.forward)


def _outermost_layers(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, _LAYERS):
            yield child
        else:
            yield from _outermost_layers(child)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def compile_parts(parts: Mapping[str, nn.Module], names: Sequence[str], device: str) -> None:
    """Let ``torch.compile`` translate parts at their first call; without a compiler, warn once.

    Args:
        parts: Parts by name; changed in place.
        names: MODEL.COMPILE, the parts to compile.
        device: MODEL.DEVICE.
    """
    if not names:
        return
    missing = missing_compiler(device)
    if missing:
        logger.warning(
            "MODEL.COMPILE: expected %s, which this machine does not have; %s will run without"
            " compilation.",
            missing,
            ", ".join(names),
        )
        return
    for name in names:
        parts[name].compile()


def missing_compiler(device: str) -> str:
    """What ``torch.compile`` needs and this machine does not have; empty: nothing.

    Args:
        device: MODEL.DEVICE, such as "cpu" or "cuda:0".
    """
    if torch.device(device).type == "cuda":
        return "" if importlib.util.find_spec("triton") else "Triton (pip install triton)"
    names = [os.environ["CXX"]] if os.environ.get("CXX") else _COMPILERS
    return "" if any(map(shutil.which, names)) else "a C++ compiler (g++, clang++, or $CXX)"
