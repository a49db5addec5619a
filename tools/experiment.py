#!/usr/bin/env python3
"""Command line of the experiments; the code is in experiments/ at the root of the repository."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # experiments/ is part of the checkout and is not installed

try:
    from experiments.command_line import main, parse_args
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("experiments"):
        raise
    sys.exit(
        f"error: {ROOT / 'experiments'} is missing ({error}). It is part of the source code, "
        "not of the installed package: run tools/experiment.py from a checkout of the repository."
    )

__all__ = ["main", "parse_args"]

if __name__ == "__main__":
    sys.exit(main())
