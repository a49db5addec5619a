"""Random seeds."""

from __future__ import annotations

import logging
import os
import random
from datetime import datetime

import numpy as np
import torch


def seed_all_rng(seed: int | None = None) -> None:
    """Seed the generators of torch (all devices), numpy and python.

    Args:
        seed: None draws one from the process id, the clock and the system's entropy, and logs it.
    """
    if seed is None:
        entropy = int.from_bytes(os.urandom(2), "big")
        seed = os.getpid() + int(datetime.now().strftime("%S%f")) + entropy
        logging.getLogger(__name__).info("Using a generated random seed %d", seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # seeds the GPUs as well
    random.seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)
