"""The process that runs cases, so that its death can be seen: ``child NAME SEED START STOP``.

It writes a line of JSON before and after each case to the stream that was its standard output.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from tests.faults.attack.cases import Attack, generator, load_attacks

#: Most memory that a case may take, bytes beyond what the process has after its imports.
MEMORY = 2 << 30
_LONGEST = 400  # characters of what is said about a lost case


def run_case(attack: Attack, seed: int, index: int) -> str | None:
    """Run a case in a new folder.

    Returns:
        What was lost; None if all held.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"attack-{attack.name}-"))
    try:
        return attack.case(index, generator(attack.name, seed, index), folder)
    except Exception as error:  # every error that a case did not expect is a loss
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"
        return f"{type(error).__name__} at {where}: {error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _limit_memory() -> None:
    """A case that asks for too much gets a MemoryError, or dies, and the machine goes on."""
    with open("/proc/self/statm", encoding="ascii") as file:
        data = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (data + MEMORY, data + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Run the cases START to STOP - 1 of an attack."""
    name, seed, start, stop = sys.argv[1], *map(int, sys.argv[2:5])
    report = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    attack = load_attacks()[name]
    if os.path.exists("/proc/self/statm"):
        _limit_memory()
    for index in range(start, stop):
        print(json.dumps({"start": index}), file=report)
        lost = run_case(attack, seed, index)
        print(json.dumps({"end": index, "lost": lost and lost[:_LONGEST]}), file=report)


if __name__ == "__main__":
    main()
