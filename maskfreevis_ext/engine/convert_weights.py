"""Published weights under the names of this project's models, and a report of what fits.

A file is recognised by the names in it. Only weights whose size fits the model are kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from maskfreevis_ext.checkpoint_manifest import forget
from maskfreevis_ext.class_names import CLASS_NAMES, check_class_names
from maskfreevis_ext.engine.class_weights import has_classes
from maskfreevis_ext.engine.weights_report import group_names
from maskfreevis_ext.errors import CheckpointError, ConfigError
from maskfreevis_ext.files import atomic_write
from maskfreevis_ext.safetensors_files import check_package, write_safetensors
from maskfreevis_ext.weights_files import read_weights_file, without_prefix

Weights = dict[str, Tensor]

#: Entries of a file that hold the weights, the one that is meant first.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state", "module", "net")
_TORCHVISION_RULES = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.", lambda match: f"res{int(match[1]) + 1}."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)
_OLD_PIXEL_DECODER = re.compile(
    r"^sem_seg_head\.(?!pixel_decoder\.|predictor\.)"
    r"(?=input_proj|transformer\.|adapter_|layer_|mask_features)"
)


@dataclass(frozen=True)
class Kind:
    """A kind of published weights.

    Attributes:
        name: For the report.
        is_it: Whether the names of a file are of this kind.
        rename: New name of a weight; "" for one that belongs to no model of this project.
        settings: Config keys that such weights need, and their values.
        backbones: Names of backbones (MODEL.BACKBONE.NAME) that they fit; empty: any.
    """

    name: str
    is_it: Callable[[set[str]], bool]
    rename: Callable[[str], str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    backbones: tuple[str, ...] = ()


def _rename_torchvision(name: str) -> str:
    if name.startswith("fc.") or name.endswith("num_batches_tracked"):
        return ""
    for pattern, replacement in _TORCHVISION_RULES:
        name = re.sub(pattern, replacement, name)
    return f"backbone.{name}"


def _rename_swin(name: str) -> str:
    """Names of the classifier (official release) or of its detectors (``backbone.`` before)."""
    name = name.removeprefix("backbone.")
    is_classifier = name.startswith(("head.", "norm."))
    if is_classifier or name.endswith(".attn_mask") or not _SWIN.match(name):
        return ""
    return f"backbone.{name}"


_SWIN = re.compile(r"patch_embed\.|absolute_pos_embed|layers\.\d+\.|norm\d\.")


def _rename_mask2former(name: str) -> str:
    name = _OLD_PIXEL_DECODER.sub("sem_seg_head.pixel_decoder.", name)
    return name.replace(".static_query.", ".query_feat.")


#: Means and deviations of ImageNet in 0..255, which torchvision's and Swin's weights expect.
_IMAGENET = {
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
}

KINDS: tuple[Kind, ...] = (
    Kind(
        "a whole model of Mask2Former or MaskFreeVIS",
        lambda names: any(name.startswith("sem_seg_head.") for name in names),
        _rename_mask2former,
    ),
    Kind(
        "a Swin Transformer",
        lambda names: any(name.endswith("relative_position_bias_table") for name in names),
        _rename_swin,
        _IMAGENET,
        ("D2SwinTransformer",),
    ),
    Kind(
        "a ResNet of torchvision",
        lambda names: {"conv1.weight", "layer1.0.conv1.weight"} <= names,
        _rename_torchvision,
        {"MODEL.RESNETS.STRIDE_IN_1X1": False, **_IMAGENET},
        ("build_resnet_backbone",),
    ),
    Kind(
        "a ResNet of Detectron2",
        lambda names: {"stem.conv1.weight", "res2.0.conv1.weight"} <= names,
        lambda name: "" if name.startswith("fc") or "linear_" in name else f"backbone.{name}",
        backbones=("build_resnet_backbone",),
    ),
)


@dataclass(frozen=True)
class Conversion:
    """Weights under the model's names, and what became of the file and of the model.

    Attributes:
        kind: What the file holds, in words.
        weights: The weights that fit, under the model's names.
        missing: Weights of the model that the file lacks.
        unused: Weights of the file that the model lacks, under the file's names.
        other_size: (name in the model, size in the file, size in the model).
        warnings: What in the config does not suit these weights.
    """

    kind: str
    weights: Weights
    missing: list[str]
    unused: list[str]
    other_size: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    warnings: list[str]

    def lines(self) -> list[str]:
        """The report, in lines of text: the count, then what differs."""
        total = len(self.weights) + len(self.missing) + len(self.other_size)
        lines = [f"{len(self.weights)} of the model's {total} weights are in the file."]
        for part in sorted({_part_of(name) for name in [*self.weights, *self.missing]}):
            have = sum(_part_of(name) == part for name in self.weights)
            lack = sum(_part_of(name) == part for name in self.missing)
            lines.append(f"  {part}: {have} of {have + lack}")
        lines += [
            f"  other size, left out: {name}: {in_file} in the file, {in_model} in the model"
            for name, in_file, in_model in self.other_size
        ]
        if self.missing:
            lines.append(f"  not in the file: {group_names(self.missing)}")
        if self.unused:
            lines.append(f"  in the file, not in the model: {group_names(self.unused)}")
        return lines + [f"  warning: {text}" for text in self.warnings]

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "kind": self.kind,
            "matched": sorted(self.weights),
            "missing": self.missing,
            "unused": self.unused,
            "other_size": [list(entry) for entry in self.other_size],
            "warnings": self.warnings,
        }


def _part_of(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "sem_seg_head" else parts[0]


def read_weights(path: str) -> tuple[Weights, list[str] | None]:
    """The weights of a file, under its own names.

    Args:
        path: ``.pth``, ``.pkl`` or ``.safetensors``.

    Returns:
        Tensors by name, without the ``module.`` of data-parallel training; the names of the
        classes, where the file has them.

    Raises:
        CheckpointError: The file cannot be read, or holds no weights by name.
    """
    content = read_weights_file(path)
    class_names = check_class_names(content.get(CLASS_NAMES)) if isinstance(content, dict) else None
    while isinstance(content, dict):
        inside = [content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)]
        if not inside:
            break
        content = inside[0]
    arrays = {
        name: torch.as_tensor(value)
        for name, value in (content.items() if isinstance(content, dict) else ())
        if isinstance(name, str) and isinstance(value, (Tensor, np.ndarray, np.generic))
    }
    if not arrays:
        raise CheckpointError(
            f"Weights file {path}: expected tensors by name, alone or under one of"
            f" {', '.join(_WRAPPERS)}; there are none."
        )
    return without_prefix(arrays), class_names


def convert(weights: Weights, cfg: CfgNode, path: str) -> Conversion:
    """Bring weights under the names of a config's model.

    Args:
        weights: Of ``read_weights``.
        cfg: The config; its model is built.
        path: Their file, for messages.

    Raises:
        CheckpointError: The names are of no known kind, or no weight fits.
        ConfigError: The model cannot be built.
    """
    kind = next((kind for kind in KINDS if kind.is_it(set(weights))), None)
    if kind is None:
        some = ", ".join(sorted(weights)[:5])
        raise CheckpointError(
            f"Weights file {path}: expected the names of {'; of '.join(k.name for k in KINDS)};"
            f" got {some}, ..."
        )
    state = build_model(cfg).state_dict()
    fitting: Weights = {}
    unused, other_size = [], []
    for name, value in sorted(weights.items()):
        new = kind.rename(name)
        if new not in state:
            unused.append(name)
        elif state[new].shape != value.shape:
            other_size.append((new, tuple(value.shape), tuple(state[new].shape)))
        else:
            fitting[new] = value.to(state[new].dtype)
    if not fitting:
        raise CheckpointError(
            f"Weights file {path} holds {kind.name}, of which nothing fits the model of the config"
            f" (MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME}). Take the config of these weights."
        )
    sized = {name for name, _, _ in other_size}
    missing = sorted(state.keys() - fitting.keys() - sized)
    return Conversion(kind.name, fitting, missing, unused, other_size, _unsuited(kind, cfg))


def _unsuited(kind: Kind, cfg: CfgNode) -> list[str]:
    """Settings of the config that do not suit weights of a kind."""
    found = []
    for key, wanted in kind.settings.items():
        value: Any = cfg
        for part in key.split("."):
            value = value[part]
        if (list(value) if isinstance(wanted, list) else value) != wanted and (
            "RESNETS" not in key or "resnet" in cfg.MODEL.BACKBONE.NAME
        ):
            found.append(f"such weights need {key} {wanted}, the config has {value}")
    return found


def write_weights(
    weights: Weights, path: str | os.PathLike[str], class_names: Sequence[str] | None = None
) -> None:
    """Write weights for MODEL.WEIGHTS.

    Args:
        weights: Tensors by the model's names.
        path: ``.pth``, or ``.safetensors``, which needs that package. It is replaced at the end.
        class_names: Names of the classes of the weights; left out if there are no weights of a
            classifier for them.

    Raises:
        ConfigError: The path has another ending, or the package is absent.
        OSError: The file cannot be written.
    """
    check_output_name(path)
    if class_names is not None and not (
        any(name.endswith("class_embed.weight") for name in weights)
        and has_classes(weights, len(class_names))
    ):
        class_names = None
    forget(path)
    if os.fspath(path).endswith(".safetensors"):
        write_safetensors(weights, path, class_names)
        return
    content: dict[str, Any] = {"model": {name: v.contiguous() for name, v in weights.items()}}
    if class_names is not None:
        content[CLASS_NAMES] = list(class_names)
    with atomic_write(path) as file:
        torch.save(content, file)


def check_output_name(path: str | os.PathLike[str]) -> None:
    """Check that ``write_weights`` can write a file of this name.

    Args:
        path: The file.

    Raises:
        ConfigError: The path has another ending than .pth and .safetensors, or the package for the
            latter is absent.
    """
    ending = os.path.splitext(path)[1]
    if ending not in (".pth", ".safetensors"):
        raise ConfigError(
            f"--output: expected a name that ends in .pth or .safetensors, got {path}."
        )
    if ending == ".safetensors":
        check_package(path)
