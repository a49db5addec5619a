"""Names of foreign weights -> names of the model's parameters."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

_logger = logging.getLogger(__name__)

#: Applied in order to Caffe2's names, after "_" became ".". Only backbones are translated.
_C2_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\.b$", ".bias"),
        (r"\.w$", ".weight"),
        (r"bn\.(s|gamma)$", "norm.weight"),
        (r"bn\.(bias|beta)$", "norm.bias"),
        (r"bn\.(rm|running\.mean)$", "norm.running_mean"),
        (r"bn\.(riv|running\.var)$", "norm.running_var"),
        (r"gn\.s$", "norm.weight"),
        (r"gn\.bias$", "norm.bias"),
        (r"^res\.conv1\.norm\.", "conv1.norm."),
        (r"^conv1\.", "stem.conv1."),
        (r"\.branch1\.", ".shortcut."),
        (r"\.branch2a\.", ".conv1."),
        (r"\.branch2b\.", ".conv2."),
        (r"\.branch2c\.", ".conv3."),
    )
)


def convert_basic_c2_names(original_keys: list[str]) -> list[str]:
    """Translate Caffe2's names of backbone weights.

    An example: ``res2_0_branch2a_bn_s`` becomes ``res2.0.conv1.norm.weight``.
    """
    converted = []
    for key in original_keys:
        name = {"pred_b": "linear_b", "pred_w": "linear_w"}.get(key, key).replace("_", ".")
        for pattern, replacement in _C2_RULES:
            name = pattern.sub(replacement, name)
        converted.append(name)
    return converted


def align_and_update_state_dicts(
    model_state_dict: Mapping[str, Any],
    ckpt_state_dict: Mapping[str, Any],
    c2_conversion: bool = True,
) -> dict[str, Any]:
    """Rename loaded weights to the model's names.

    A loaded name fits a parameter if it equals the parameter's name or its end behind a dot; the
    longest fit counts.

    Args:
        model_state_dict: State dict of the model.
        ckpt_state_dict: Loaded weights.
        c2_conversion: Translate the loaded names from Caffe2's first.

    Returns:
        The loaded weights; those that fit nothing keep their names. Weights of another shape than
        the parameter that they fit are left out, with a warning.

    Raises:
        ValueError: One weight fits two parameters.
    """
    loaded = dict(ckpt_state_dict)
    if c2_conversion:
        names = sorted(loaded)
        loaded = {
            new: loaded[old] for old, new in zip(names, convert_basic_c2_names(names), strict=True)
        }
    result: dict[str, Any] = {}
    used: dict[str, str] = {}
    for key in sorted(model_state_dict):
        source = _longest_suffix(key, loaded)
        if source is None:
            continue
        shape, found = tuple(model_state_dict[key].shape), tuple(loaded[source].shape)
        if shape != found:
            _logger.warning(
                "Weight %s of shape %s does not fit %s of shape %s and is not loaded.",
                source,
                found,
                key,
                shape,
            )
            continue
        if source in used:
            raise ValueError(f"Weight {source} fits two parameters: {used[source]} and {key}.")
        used[source] = key
        result[key] = loaded[source]
    if not used:
        _logger.warning("No weight of the checkpoint fits the model.")
        return loaded
    _logger.info("%d weights of the checkpoint fit parameters of the model.", len(used))
    result.update({name: value for name, value in loaded.items() if name not in used})
    return result


def _longest_suffix(key: str, names: Mapping[str, Any]) -> str | None:
    parts = key.split(".")
    for start in range(len(parts)):
        suffix = ".".join(parts[start:])
        if suffix in names:
            return suffix
    return None
