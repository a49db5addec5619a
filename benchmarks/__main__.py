"""``python -m benchmarks``: the same as ``python tools/benchmark.py``."""

from __future__ import annotations

import sys

from benchmarks.command_line import launch

if __name__ == "__main__":
    sys.exit(launch())
