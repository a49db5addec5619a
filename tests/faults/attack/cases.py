"""What an attack is, and the list of all attacks."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tests.faults.attack as package

#: Runs one case in an empty folder of its own; says what was lost, or None if all held. An
#: exception that it lets through, the death of the process and a hang are losses too.
Case = Callable[[int, random.Random, Path], str | None]

_TOOLS = {"__main__", "cases", "child", "run", "table"}


@dataclass(frozen=True)
class Attack:
    """A kind of attack.

    Attributes:
        name: Short name, for the command line.
        title: What is done, for the table.
        promise: What must hold, for the table.
        count: Cases of a full run.
        quick: Cases in the test suite.
        limit: Seconds after which a case counts as hung.
        case: Runs one case.
    """

    name: str
    title: str
    promise: str
    count: int
    quick: int
    limit: float
    case: Case


ATTACKS: dict[str, Attack] = {}


def attack(
    title: str, promise: str, *, count: int, quick: int, limit: float = 60.0
) -> Callable[[Case], Case]:
    """Decorator that registers an attack under the name of its function."""

    def register(case: Case) -> Case:
        name = case.__name__.replace("_", "-")
        ATTACKS[name] = Attack(name, title, promise, count, quick, limit, case)
        return case

    return register


def load_attacks() -> dict[str, Attack]:
    """All attacks by name; imports the modules of this folder that register them."""
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in _TOOLS:
            importlib.import_module(f"{package.__name__}.{module.name}")
    return ATTACKS


def generator(name: str, seed: int, index: int) -> random.Random:
    """The random numbers of a case, which depend on nothing else."""
    return random.Random(f"{name} {seed} {index}")
