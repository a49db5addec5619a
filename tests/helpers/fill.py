"""Parameter values that depend on the name and the shape only, so that no weight file is needed.

The golden outputs of the reference were made with the same values. The rules, the first that fits:
buffers of counts and indices and the criterion keep their values; running_var 0.5 + uniform;
running_mean 0.1 normal; conv3.norm.weight 0.2 + 0.1 uniform; other 1-D weights 0.75 + 0.5 uniform;
sampling_offsets.bias 4 uniform - 2; other 1-D 0.1 normal; embeddings normal;
relative_position_bias_table and absolute_pos_embed 0.5 normal; the rest normal / sqrt(fan_in),
halved for the last layer of mask_embed and times sqrt(2) for convolutions of the backbone.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn

_KEPT = ("num_batches_tracked", "relative_position_index", "relative_coords_table", "attn_mask")
_EMBEDDINGS = (
    "query_feat.weight",
    "query_embed.weight",
    "level_embed.weight",
    "level_embed",
    "static_query.weight",
)
_TABLES = ("relative_position_bias_table", "absolute_pos_embed")


def _is_kept(key: str) -> bool:
    return key.endswith(_KEPT) or key.startswith("criterion.")


def _normal_scale(key: str, shape: tuple[int, ...]) -> float:
    """Standard deviation of an entry that is drawn from a normal distribution."""
    if key.endswith("running_mean") or len(shape) <= 1:
        return 0.1
    if key.endswith(_EMBEDDINGS):
        return 1.0
    if key.endswith(_TABLES):
        return 0.5
    scale = 1 / math.sqrt(math.prod(shape[1:]))
    if key.endswith("mask_embed.layers.2.weight"):
        return 0.5 * scale
    if "backbone." in key and len(shape) == 4:
        return math.sqrt(2) * scale
    return scale


def fill_value(key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The value of an entry of a state dict, float64; None where the entry keeps its own."""
    if _is_kept(key):
        return None
    random = np.random.RandomState(zlib.crc32(key.encode()))
    uniform_rules = (
        ("running_var", 0.5, 1.0),
        ("running_mean", None, None),
        ("conv3.norm.weight", 0.2, 0.1),
        ("weight" if len(shape) <= 1 else "\0", 0.75, 0.5),
        ("sampling_offsets.bias", -2.0, 4.0),
    )
    for ending, low, width in uniform_rules:
        if key.endswith(ending):
            if low is None:
                break
            return low + width * random.random_sample(size=shape)
    return _normal_scale(key, shape) * random.standard_normal(size=shape)


@torch.no_grad()
def fill_module(module: nn.Module) -> None:
    """Give every entry of a module's state dict its value, in place."""
    for key, tensor in module.state_dict().items():
        value = fill_value(key, tuple(tensor.shape))
        if value is not None:
            tensor.copy_(torch.from_numpy(np.asarray(value)))


def checksum(state_dict: dict[str, Tensor]) -> tuple[float, float]:
    """Sum of all filled entries and of their squares."""
    filled = [v.double() for k, v in state_dict.items() if not _is_kept(k)]
    return sum(v.sum().item() for v in filled), sum(v.square().sum().item() for v in filled)
