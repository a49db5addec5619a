"""Worker processes of a loader that die, fail or hang: what they were reading, and their end.

torch raises a traceback of its own for a worker that fails, and waits for ever for one that hangs.
It also waits for ever, whatever its ``timeout`` says, for the pixels of a batch whose worker was
stopped after it had sent the rest, so the time is measured outside of it.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.util  # its own exit function must run after the one below  # noqa: F401
import os
import re
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any

from maskfreevis_ext.data.worker_notes import WorkerNotes
from maskfreevis_ext.errors import DataError, MaskFreeError, signal_name

_FROM_WORKER = re.compile(r"in DataLoader worker process (\d+)")
_PID = re.compile(r"\bpid\D{0,6}(\d+)")

_MOMENT = 5.0  # seconds in which the end of a worker is seen


class _WorkerTraceback(Exception):
    """Traceback of a worker, as the cause of the error that a user sees."""


class WorkerWatch:
    """Watches the workers of one pass over a loader.

    Attributes:
        workers: The processes.
        fault: Why the workers were ended before their time; None: they were not.
        is_raised: The fault was raised where the main thread was.

    Args:
        workers: The processes, by their number.
        notes: What each of them is doing.
        timeout: Longest time that is waited for a batch, seconds; 0: for ever.
        done: What tells the workers to end, if anything does.
    """

    def __init__(
        self,
        workers: Sequence[BaseProcess],
        notes: WorkerNotes,
        timeout: float,
        done: Event | None = None,
    ) -> None:
        self.workers, self._notes, self._timeout = list(workers), notes, timeout
        self._done = done
        self._process = os.getpid()
        self.fault: DataError | None = None
        self.is_raised = False
        _watches.add(self)
        _raise_clear_errors()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for a batch; workers that are late are ended, which ends the waiting.

        Yields:
            Once.
        """
        timer = threading.Timer(self._timeout, self._give_up) if self._timeout > 0 else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    def _give_up(self) -> None:
        busy = [
            i for i in range(len(self.workers)) if self._notes.is_busy(i) or self._is_stopped(i)
        ]
        shown = "; ".join(map(self._describe, busy or range(len(self.workers))))
        self.fault = DataError(
            f"The workers of the data loader gave no batch for {self._timeout:g} seconds"
            f" (DATALOADER.TIMEOUT): {shown}. Is the storage that slow, or does it hang?"
        )
        self.end()

    def explain(self, error: BaseException) -> MaskFreeError | None:
        """The error that a user should see for one that came out of the loader.

        Args:
            error: What torch raised.

        Returns:
            It with the traceback of the worker, if there is one, as its cause; None if the error
            was not made by a worker.
        """
        if self.fault is not None:
            return self.fault
        text = str(error)
        found = _FROM_WORKER.search(text)
        if found is not None:
            return self._of_exception(error, text, int(found[1]))
        # The connections of a worker that dies break a moment before its end can be seen.
        broken = connection.wait([worker.sentinel for worker in self.workers], _MOMENT)
        for worker in self.workers:
            if worker.sentinel in broken:
                worker.join(_MOMENT)
        return self.fault_of_dead()

    def _of_exception(self, error: BaseException, text: str, worker: int) -> MaskFreeError:
        cause = _WorkerTraceback(text)
        if isinstance(error, MaskFreeError):
            mark = f"{type(error).__module__}.{type(error).__qualname__}: "
            fault: MaskFreeError = type(error)(text.rsplit(mark, 1)[-1].strip())
        else:
            lines = [line for line in text.splitlines() if line and not line.startswith(" ")]
            fault = DataError(
                f"The data loader failed with {lines[-1] if lines else type(error).__name__}:"
                f" {self._describe(worker)}. The log file has the traceback."
            )
        fault.__cause__ = cause
        return fault

    def fault_of_dead(self) -> DataError | None:
        """The error of workers that have ended before their time, or None if there is none."""
        if self.fault is not None:
            return self.fault
        dead = [
            i
            for i, worker in enumerate(self.workers)
            if worker.exitcode and worker.pid not in _ended
        ]
        if not dead:
            return None
        return DataError(
            f"A worker of the data loader died: {'; '.join(map(self._describe, dead))}. The system"
            " kills processes when memory runs out: lower DATALOADER.NUM_WORKERS or"
            " SOLVER.IMS_PER_BATCH if it did."
        )

    def _describe(self, worker: int) -> str:
        process = self.workers[worker]
        code = process.exitcode
        state = ""
        if code is not None and code < 0:
            state = f", which was ended by {signal_name(-code)}"
        elif code:
            state = f", which ended with exit code {code}"
        elif self._is_stopped(worker):
            state = ", which is stopped"
        when = "reading" if self._notes.is_busy(worker) else "after reading"
        last = self._notes.read(worker)
        doing = f"{when} {last}" if last else "before its first sample"
        return f"worker {worker} (process {process.pid}{state}), {doing}"

    def _is_stopped(self, worker: int) -> bool:
        """Whether a signal stopped the process, on systems that tell."""
        try:
            with open(f"/proc/{self.workers[worker].pid}/stat", encoding="ascii") as file:
                return file.read().rsplit(")", 1)[-1].split()[0] in ("T", "t")
        except (OSError, ValueError, IndexError):
            return False

    def close(self) -> None:
        """End the workers, whose deaths then are no faults.

        A copy in another process ends nobody: a worker is forked with the passes of its parent, and
        closes those that are garbage there.
        """
        if os.getpid() != self._process:
            return
        _watches.discard(self)
        self.end()
        for worker in self.workers:
            worker.join(_MOMENT)
        if self._done is not None:
            # A worker that was killed while it asked whether to end has left the lock closed, and
            # torch would wait for it for ever. Nobody else can hold it now.
            lock = self._done._cond._lock  # type: ignore[attr-defined]
            lock.acquire(block=False)
            lock.release()

    def end(self) -> None:
        """Kill the workers that still run; also stopped ones, which no other signal reaches."""
        for worker in self.workers:
            if worker.pid is not None:
                _ended.add(worker.pid)
            worker.kill()


#: Passes whose workers run, and processes that were ended on purpose.
_watches: weakref.WeakSet[WorkerWatch] = weakref.WeakSet()
_ended: set[int] = set()


@atexit.register
def _end_all() -> None:
    for watch in list(_watches):
        watch.close()


def _raise_clear_errors() -> None:
    """Let the death of a worker raise a clear error wherever the main thread is.

    torch's handler of SIGCHLD raises its own there.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return
    inner = signal.getsignal(signal.SIGCHLD)
    if not callable(inner) or getattr(inner, "is_ours", False):
        return

    def handler(number: int, frame: FrameType | None) -> Any:
        try:
            inner(number, frame)
        except RuntimeError as error:
            for watch in list(_watches):
                fault = None if watch.is_raised else watch.fault_of_dead()
                if fault is not None:
                    # torch may catch what is raised here
                    watch.fault, watch.is_raised = fault, True
                    watch.end()
                    raise fault from None
            pids = set(map(int, _PID.findall(str(error))))
            if not pids or not pids <= _ended:
                raise

    handler.is_ours = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGCHLD, handler)
