"""Shared fixtures. Importing the package first picks the Detectron2 provider for the whole run."""

from __future__ import annotations

import os
from pathlib import Path

# One thread, here and in the processes that tests start: the tests are small, and threads that
# wait for a busy core cost more than they give. OpenMP reads it when torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch

import maskfreevis_ext  # noqa: F401

torch.set_num_threads(1)
# The same examples in every run; `make attack` draws others.
hypothesis.settings.register_profile("equal", derandomize=True)
hypothesis.settings.load_profile("equal")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small generated data set, see ``tests.helpers.training``."""
    from tests.helpers.training import write_videos

    return write_videos(tmp_path_factory.mktemp("videos"))
