"""Waiting for what another thread or process does, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds after which a test gives up; nothing that works takes so long.
LIMIT = 120.0


def wait_until(holds: Callable[[], object], limit: float = LIMIT) -> bool:
    """Wait until a condition holds.

    Args:
        holds: The condition, asked every 10 ms.
        limit: Seconds after which it is given up.

    Returns:
        Whether it holds.
    """
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return bool(holds())
