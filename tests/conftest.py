"""Shared fixtures. Importing the package first picks the Detectron2 provider for the whole run."""

from __future__ import annotations

import pytest
import torch

import maskfreevis_ext  # noqa: F401

torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
