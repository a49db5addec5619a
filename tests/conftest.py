"""Shared fixtures. Importing the package first picks the Detectron2 provider for the whole run."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

# One thread, here and in the processes that tests start: the tests are small, and threads that
# wait for a busy core cost more than they give. OpenMP reads it when torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

import maskfreevis_ext  # noqa: F401

torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a process of pytest-xdist, the files with most slow tests come first.

    Each process takes the next file when it has done one. A long file at the end would be done by
    one process while the others have nothing left.
    """
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small generated data set, see ``tests.helpers.training``."""
    from tests.helpers.training import write_videos

    return write_videos(tmp_path_factory.mktemp("videos"))
