"""Random states."""

from __future__ import annotations

import random

import numpy as np
import torch

from maskfreevis_ext.engine.random_state import get_random_state, set_random_state


def _draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        torch.rand(()).item(),
        torch.randn(3)[1].item(),
    ]


def test_random_state_survives_a_file_that_holds_plain_values_only(tmp_path):
    _draw()  # leaves a cached Gaussian in Python's and NumPy's generators
    torch.save(get_random_state(), tmp_path / "state.pth")
    expected = [_draw() for _ in range(3)]
    set_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert [_draw() for _ in range(3)] == expected
