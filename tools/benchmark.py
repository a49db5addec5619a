#!/usr/bin/env python3
"""Command line of the benchmarks; the code is in benchmarks/ at the root of the repository."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is part of the checkout and is not installed

try:
    from benchmarks.command_line import launch
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("benchmarks"):
        raise
    sys.exit(
        f"error: {ROOT / 'benchmarks'} is missing ({error}). It is part of the source code, "
        "not of the installed package: run tools/benchmark.py from a checkout of the repository."
    )

if __name__ == "__main__":
    sys.exit(launch())
