"""Fixtures of all tests of the engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.helpers.training import own_loggers


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    # Faster than two for models this small, above all beside other processes.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    with own_loggers():
        yield
