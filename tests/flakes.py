"""Runs the fast tests several times and names those that do not always end alike.

``python -m tests.flakes`` (``make flakes``): 20 times, each time with another hash seed of Python.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from tqdm import tqdm


def outcomes(report: Path) -> dict[str, str]:
    """Outcome of each test in a JUnit file of pytest: passed, or the name of the element."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        found[f"{case.get('classname')}::{case.get('name')}"] = kinds[0] if kinds else "passed"
    return found


def differing(runs: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """Tests that ended differently, or were absent from a run, and how they ended."""
    ends: dict[str, list[str]] = defaultdict(list)
    for name in {name for run in runs for name in run}:
        ends[name] = [run.get(name, "absent") for run in runs]
    return {name: ends[name] for name in sorted(ends) if len(set(ends[name])) > 1}


def run_once(number: int, words: Sequence[str], folder: Path) -> dict[str, str]:
    """Outcomes of one run of pytest."""
    report = folder / f"{number}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    environment = {**os.environ, "PYTHONHASHSEED": str(number)}
    with open(folder / f"{number}.log", "w", encoding="utf-8") as log:
        subprocess.run(
            [*command, f"--junitxml={report}"], env=environment, stdout=log, stderr=log, check=False
        )
    if not report.exists():
        raise SystemExit(f"pytest did not run:\n{(folder / f'{number}.log').read_text()[-2000:]}")
    return outcomes(report)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives 1 if a test ended differently or failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.flakes", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="runs (default 20)")
    parser.add_argument(
        "words",
        nargs="*",
        help="words for pytest (default: the fast tests, one process a core)",
    )
    args = parser.parse_args(argv)
    words = args.words or ["-m", "not slow", "-n", "auto", "--dist", "loadfile"]
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            run_once(number, words, Path(folder))
            for number in tqdm(range(args.times), desc="runs", unit="run")
        ]
    flaky = differing(runs)
    failing = [name for name, end in runs[0].items() if end not in ("passed", "skipped")]
    for name, ends in flaky.items():
        counts = ", ".join(f"{end} {ends.count(end)}" for end in sorted(set(ends)))
        print(f"differs: {name}: {counts}")
    for name in sorted(set(failing) - set(flaky)):
        print(f"fails always: {name}")
    print(f"{args.times} runs of {len(runs[0])} tests: {len(flaky)} end differently.")
    return 1 if flaky or failing else 0


if __name__ == "__main__":
    sys.exit(main())
