"""Reading ahead and writing behind in threads, through queues of bounded length."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()
_PATIENCE = 0.1  # seconds after which a waiting reader looks whether it is still wanted


def read_ahead(items: Iterable[T], size: int = 4) -> Generator[T, None, None]:
    """Iterate in a thread, up to ``size`` items ahead.

    Args:
        items: Any iterable; it is used in the other thread only.
        size: Largest number of items that wait.

    Yields:
        The same items in the same order.

    Raises:
        BaseException: What the iteration raised, after the items before it.
    """
    waiting: queue.Queue = queue.Queue(size)
    is_over = threading.Event()

    def put(item: object) -> None:
        while not is_over.is_set():
            try:
                return waiting.put(item, timeout=_PATIENCE)
            except queue.Full:
                continue

    def work() -> None:
        error: BaseException | None = None
        iterator = iter(items)
        try:
            for item in iterator:
                put((item, None))
                if is_over.is_set():
                    break
        except BaseException as caught:  # goes on in the other thread
            error = caught
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()  # files are closed in the thread that opened them
        put((_END, error))

    thread = threading.Thread(target=work, name="read_ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        is_over.set()
        thread.join()


class WriteBehind(Generic[T]):
    """Calls a function in a thread for item after item.

    Args:
        write: What is called; after its first error it is not called again.
        size: Largest number of items that wait.
    """

    def __init__(self, write: Callable[[T], None], size: int = 4) -> None:
        self._write = write
        self._waiting: queue.Queue = queue.Queue(size)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="write_behind", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Add an item, and wait while the queue is full.

        Args:
            item: The next item.

        Raises:
            BaseException: What the function raised for an earlier item.
        """
        if self._error is not None:
            raise self._error
        self._waiting.put(item)

    def close(self) -> None:
        """Wait until all items are written.

        Raises:
            BaseException: What the function raised.
        """
        if self._thread.is_alive():
            self._waiting.put(_END)
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            item = self._waiting.get()
            if item is _END:
                return
            if self._error is None:
                try:
                    self._write(item)
                except BaseException as caught:  # goes on in ``put`` or ``close``
                    self._error = caught
