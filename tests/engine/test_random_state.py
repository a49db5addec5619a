"""Random numbers of training steps."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from maskfreevis_ext.engine.random_state import seed_step


def _draw() -> tuple[float, ...]:
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        torch.rand(()).item(),
        torch.randn(3)[1].item(),
    )


def test_numbers_of_a_step_do_not_depend_on_what_was_drawn_before():
    seed_step(5, 10)
    expected = _draw()
    for _ in range(3):  # leaves a cached Gaussian in the generators
        _draw()
    seed_step(5, 10)
    assert _draw() == expected


@pytest.mark.parametrize("other", [(6, 10, 0), (5, 11, 0), (5, 10, 1)])
def test_numbers_differ_between_seeds_steps_and_processes(other):
    seed_step(5, 10, 0)
    first = _draw()
    seed_step(*other)
    assert not set(first) & set(_draw())
