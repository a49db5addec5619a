"""Fixtures of all tests of the config."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.training import own_loggers


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    with own_loggers():
        yield
