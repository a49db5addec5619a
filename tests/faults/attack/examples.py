"""Examples of hypothesis, which looks for the smallest one that breaks a property."""

from __future__ import annotations

import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import seed as use_seed

from tests.faults.attack.cases import attack
from tests.faults.properties import PROPERTIES

_AT_ONCE = 50
_NAMES = sorted(PROPERTIES)


@attack(
    f"properties of the JSON loader and the converter, {_AT_ONCE} examples of hypothesis a case",
    "hold",
    count=400,
    quick=len(_NAMES),
    limit=300,
)
def hypothesis(index: int, rng: random.Random, folder: Path) -> str | None:
    """One property, with examples of its own."""
    name = _NAMES[index % len(_NAMES)]
    check, strategies = PROPERTIES[name]
    choose = settings(
        max_examples=_AT_ONCE,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        use_seed(rng.randrange(2**32))(choose(given(*strategies)(check)))()
    except Exception as error:
        notes = " ".join(getattr(error, "__notes__", []))
        return f"{name}: {type(error).__name__}: {error} {notes}"
    return None
