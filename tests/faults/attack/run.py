"""Runs the cases of an attack in child processes, and notices when one dies or hangs."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.attack.cases import Attack

ROOT = Path(__file__).resolve().parents[3]
#: What Python runs as the child.
MODULE = ["-m", "tests.faults.attack.child"]
_START = 300.0  # seconds that a process may take until its first case


@dataclass
class Tally:
    """The outcome of an attack.

    Attributes:
        attack: Which.
        planned: Cases that were asked for.
        tried: Cases that were run.
        lost: What was lost, by the number of the case.
    """

    attack: Attack
    planned: int
    tried: int = 0
    lost: dict[int, str] = field(default_factory=dict)


def run_attack(
    tally: Tally,
    *,
    seed: int = 0,
    deadline: float = float("inf"),
    advance: Callable[[], Any] = lambda: None,
) -> None:
    """Run the planned cases of an attack.

    Args:
        tally: Which attack; gets the outcome.
        seed: Of the random numbers.
        deadline: ``time.monotonic()`` from which on no case is started.
        advance: Called after each case.
    """
    count = tally.planned
    while tally.tried < count and time.monotonic() < deadline:
        with _Child(tally.attack, seed, tally.tried, count) as child:
            while tally.tried < count and time.monotonic() < deadline:
                lost, is_over = child.next()
                if lost is not None:
                    tally.lost[tally.tried] = lost
                tally.tried += 1
                advance()
                if is_over:
                    break


class _Child:
    """A process that runs cases one after the other."""

    def __init__(self, attack: Attack, seed: int, start: int, stop: int) -> None:
        words = [attack.name, str(seed), str(start), str(stop)]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.limit = attack.limit
        self.process = subprocess.Popen(
            [sys.executable, *MODULE, *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.is_first = True
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def next(self) -> tuple[str | None, bool]:
        """What the next case lost, and whether the process is gone."""
        try:
            started = self.lines.get(timeout=_START if self.is_first else self.limit)
            if started is None and self.is_first:
                raise RuntimeError(
                    f"the attack could not start; run it alone: {' '.join(self.process.args)}"
                )
            self.is_first = False
            ended = started and self.lines.get(timeout=self.limit)
        except queue.Empty:
            self._kill()
            return f"hung: no end after {self.limit:g} s", True
        if ended is None:
            code = self.process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return f"the process died: {how}", True
        return json.loads(ended)["lost"], False
