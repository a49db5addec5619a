"""Runs the fast tests several times and names those that do not always end alike.

``python -m tests.flakes`` (``make flakes``): 20 times, each time with another hash seed of Python.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from tqdm import tqdm

_FAST = ("-m", "not slow", "-n", "auto", "--maxprocesses", "8", "--dist", "loadfile")


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


def run_once(number: int, words: Sequence[str], folder: Path, limit: float) -> dict[str, str]:
    """Outcomes of one run of pytest; SystemExit if it makes no report, or none in ``limit`` s.

    A test that takes half of the limit has the stacks of its threads in what SystemExit shows.
    """
    report, log = folder / f"{number}.xml", folder / f"{number}.log"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    command += ["-o", f"faulthandler_timeout={limit / 2}", f"--junitxml={report}"]
    environment = {**os.environ, "PYTHONHASHSEED": str(number)}
    with open(log, "w", encoding="utf-8") as file:
        run = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            run.wait(limit)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"run {number} hangs: no end in {limit:g} s\n{_end_of(log)}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it left goes with it
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    if not report.exists():
        raise SystemExit(f"pytest did not run:\n{_end_of(log)}")
    return outcomes(report)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-8000:]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives 1 if a test ended differently or failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.flakes", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="runs (default 20)")
    parser.add_argument(
        "--limit", type=float, default=1800, help="seconds a run may take (default 1800)"
    )
    parser.add_argument(
        "words",
        nargs="*",
        help="words for pytest (default: the fast tests, as make test-fast runs them)",
    )
    args = parser.parse_args(argv)
    words = args.words or _FAST
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            run_once(number, words, Path(folder), args.limit)
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
