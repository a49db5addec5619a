"""Ctrl-C and SIGTERM that end a long run in an orderly way."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import connection
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130  #: Exit code after Ctrl-C, as shells have it: 128 + SIGINT.
TERMINATED = 143  #: Exit code after SIGTERM: 128 + SIGTERM.

#: Seconds after SIGTERM at which a process of several ends if it waits for another one that is
#: gone: its Python code, and with it the handler of the signal, does not run then.
STUCK_SECONDS = 5.0
_POLL_SECONDS = 0.5

_STDERR = 2  # file descriptor


class Terminated(KeyboardInterrupt):
    """SIGTERM, where the code deals with it as with Ctrl-C."""


def stop_error(exit_code: int, message: str = "") -> KeyboardInterrupt:
    """The exception that ends a command with ``INTERRUPTED`` or ``TERMINATED``.

    Args:
        exit_code: One of the two.
        message: What the command prints; "" for nothing.
    """
    return Terminated(message) if exit_code == TERMINATED else KeyboardInterrupt(message)


class StopOnInterrupt:
    """In its ``with`` block the first Ctrl-C or SIGTERM is a request to stop, the next one stops.

    Args:
        message: What the first signal prints; "" for nothing.
        is_one_of_several: The process trains together with others. A signal that comes while it
            waits for one that is gone ends it after ``STUCK_SECONDS``.

    Attributes:
        exit_code: ``INTERRUPTED`` or ``TERMINATED`` after a signal, else 0.
    """

    def __init__(self, message: str, is_one_of_several: bool = False) -> None:
        self.exit_code = 0
        self._message = message
        self._guards = is_one_of_several
        self._stops_at_once = False
        self._handled = -1.0  # time of the last signal
        self._process = os.getpid()

    @property
    def is_requested(self) -> bool:
        """Whether a signal has come."""
        return self.exit_code > 0

    def __enter__(self) -> StopOnInterrupt:
        """Take over the signals; in the main thread only, as Python demands."""
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._before = {
                number: signal.signal(number, self._handle)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
            if self._guards:
                self._start_guard()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        if self._is_main:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            if self._guards:
                signal.set_wakeup_fd(self._wakeup_before)
                os.close(self._pipe)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """In this block the first signal raises, too: nothing would be lost.

        Raises:
            KeyboardInterrupt: A signal comes, or has come.
        """
        self._stops_at_once = True
        try:
            if self.is_requested:
                raise stop_error(self.exit_code)
            yield
        finally:
            self._stops_at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader's worker, which has inherited the handler
            return
        self._handled = time.monotonic()
        repeated, self.exit_code = self.is_requested, 128 + number
        if self._stops_at_once:
            raise stop_error(self.exit_code)
        if repeated and multiprocessing.parent_process() is None:
            # In a child process the second signal may be the first one, passed on by the parent.
            raise stop_error(self.exit_code, "Stopped at once.")
        if self._message and not repeated:
            # Not print: the signal may have come in the middle of another print.
            os.write(_STDERR, f"\n{self._message}\n".encode())

    def _start_guard(self) -> None:
        before = time.monotonic()
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._wakeup_before = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        threading.Thread(target=self._guard, args=(reading, before), daemon=True).start()

    def _guard(self, reading: int, before: float) -> None:
        """End the process if the main thread does not get to handle a SIGTERM.

        Args:
            reading: End of the pipe to which the interpreter writes the numbers of signals.
            before: Time before the first of them, as of ``time.monotonic``.
        """
        with open(reading, "rb", buffering=0) as numbers:
            while True:
                now = time.monotonic()
                if not connection.wait([reading], _POLL_SECONDS):
                    before = now
                    continue
                number = numbers.read(1)
                if not number:
                    return
                if number[0] == signal.SIGTERM:
                    timer = threading.Timer(STUCK_SECONDS, self._end_if_stuck, (before,))
                    timer.daemon = True
                    timer.start()

    def _end_if_stuck(self, before: float) -> None:
        """End the process if no signal was handled since a time before the signal came.

        That is not the time when its number was read: the guard may run long after the handler.
        """
        if self._handled < before:
            os._exit(TERMINATED)


class _RaiseTerminated:
    """Handler of SIGTERM that raises ``Terminated`` in this process."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != self._process:  # a child that has inherited the handler
            os._exit(TERMINATED)
        raise Terminated("Stopped by SIGTERM.")


@contextlib.contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """In this block SIGTERM raises ``Terminated``, so that unfinished files are removed.

    Raises:
        Terminated: SIGTERM came.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _RaiseTerminated())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def terminate_at_once() -> None:
    """Undo ``terminate_like_interrupt`` in a process of several.

    While it waits for another one that is gone, it runs no handler.
    """
    if isinstance(signal.getsignal(signal.SIGTERM), _RaiseTerminated):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
