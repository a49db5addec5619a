"""The layouts of weights files, brought into Detectron2's: a dict with the weights by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from maskfreevis_ext.errors import CheckpointError
from maskfreevis_ext.weights_files import without_prefix


def as_model_zoo(data: object, filename: str) -> dict[str, Any]:
    """Convert the layouts of ``.pkl`` files (Detectron2, ImageNet, Detectron 1) into one.

    Args:
        data: Content of the file.
        filename: The file, for messages.

    Returns:
        A dict with the weights under ``model``.

    Raises:
        CheckpointError: There are no weights by name.
    """
    if not isinstance(data, dict):
        raise CheckpointError(
            f"Weights file {filename}: expected a dict, got {type(data).__name__}."
        )
    if isinstance(data.get("model"), dict):
        loaded = data
    else:
        blobs = data.get("blobs", data)
        weights = {k: v for k, v in blobs.items() if not k.endswith("_momentum")}
        loaded = {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
    _check_weights(loaded["model"], filename)
    return loaded


def as_checkpoint(data: object, filename: str) -> dict[str, Any]:
    """Convert a bare state dict and the layout of pycls to Detectron2's layout.

    Args:
        data: Content of the file.
        filename: The file, for messages.

    Returns:
        A dict with the weights under ``model``, without the prefix of data-parallel training.

    Raises:
        CheckpointError: There are no weights by name.
    """
    if not isinstance(data, dict):
        raise CheckpointError(
            f"Weights file {filename}: expected a dict of tensors, got {type(data).__name__}."
        )
    if "model" in data:
        loaded = data
    elif "model_state" in data:
        weights = {
            k: v for k, v in data["model_state"].items() if not k.endswith("num_batches_tracked")
        }
        loaded = {"model": weights, "__author__": "pycls", "matching_heuristics": True}
    else:
        loaded = {"model": data}
    _check_weights(loaded["model"], filename)
    loaded["model"] = without_prefix(loaded["model"])
    return loaded


def _check_weights(weights: object, filename: str) -> None:
    if not isinstance(weights, dict):
        raise CheckpointError(
            f"Weights file {filename}: expected a dict under 'model', got {type(weights).__name__}."
        )
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, (torch.Tensor, np.ndarray)):
            raise CheckpointError(
                f"Weights file {filename}: expected tensors by name, got {type(value).__name__} "
                f"under {key!r}."
            )
