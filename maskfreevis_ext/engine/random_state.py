"""The random numbers of a training step: a function of seed, step and process, and of nothing else.

A training that is killed and goes on from a checkpoint therefore draws the same numbers as one that
is not, and no state of a generator has to be stored.
"""

from __future__ import annotations

import random

import numpy as np
import torch

from maskfreevis_ext.data.sampler import hash_numbers

#: The numbers that the sampler draws have the purposes below.
_FIRST_PURPOSE = 2


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed the generators of Python, NumPy, and PyTorch on all devices for a training step.

    Args:
        seed: Of the run, >= 0.
        step: >= 0.
        rank: Index of the process, >= 0.

    Example:
        >>> seed_step(1, 7)
        >>> first = torch.rand(2)
        >>> seed_step(1, 7)
        >>> bool((torch.rand(2) == first).all())
        True
    """
    drawn = int(hash_numbers(seed, np.array([step]), _FIRST_PURPOSE + rank)[0] >> np.uint64(33))
    random.seed(drawn)
    np.random.seed(drawn)
    torch.manual_seed(drawn)
