"""Ctrl-C that ends a long run in an orderly way."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

INTERRUPTED = 130  #: Exit code after Ctrl-C, as shells have it: 128 + SIGINT.


class StopOnInterrupt:
    """In its ``with`` block the first Ctrl-C is a request to stop, the next a KeyboardInterrupt.

    Args:
        message: What the first Ctrl-C prints.

    Attributes:
        is_requested: Whether Ctrl-C was pressed.
    """

    def __init__(self, message: str) -> None:
        self.is_requested = False
        self._message = message

    def __enter__(self) -> StopOnInterrupt:
        """Take over the signal; in the main thread only, as Python demands."""
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signal back."""
        if self._is_main:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_requested:
            raise KeyboardInterrupt
        self.is_requested = True
        print(f"\n{self._message}", file=sys.stderr, flush=True)
