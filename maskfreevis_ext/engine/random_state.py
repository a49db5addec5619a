"""The state of all random generators of a process, as plain values and tensors."""

from __future__ import annotations

import random

import numpy as np
import torch


def get_random_state() -> dict:
    """The states of Python's, NumPy's and PyTorch's generators, and of the current GPU's if any.

    Returns:
        A dict of plain values and tensors, which ``torch.load(weights_only=True)`` reads.
    """
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Put the generators into a state of ``get_random_state``, as far as this machine has them."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
