"""The state of all random generators of a process, as plain values and tensors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def get_random_state() -> dict[str, Any]:
    """States of the random generators of Python, NumPy, PyTorch, and of the current GPU if any.

    Returns:
        A dict of plain values and tensors, which ``torch.load(weights_only=True)`` reads.
    """
    numpy_state = np.random.get_state(legacy=False)
    generator = numpy_state["state"]
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [
            numpy_state["bit_generator"],
            generator["key"].tolist(),
            int(generator["pos"]),
            int(numpy_state["has_gauss"]),
            float(numpy_state["gauss"]),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore a state of ``get_random_state``; a GPU's state is skipped if there is no GPU."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
