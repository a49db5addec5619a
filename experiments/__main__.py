"""``python -m experiments``: the same as ``python tools/experiment.py``."""

from __future__ import annotations

import sys

from experiments.command_line import main

if __name__ == "__main__":
    sys.exit(main())
