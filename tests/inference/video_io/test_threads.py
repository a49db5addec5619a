"""Reading ahead and writing behind."""

from __future__ import annotations

import threading
import time

import pytest

from maskfreevis_ext.inference.video_io.threads import WriteBehind, read_ahead
from tests.helpers.waiting import wait_until


def num_threads() -> int:
    return threading.active_count()


class TestReadAhead:
    """An iterator in a thread."""

    def test_items_and_order_stay(self):
        before = num_threads()

        assert list(read_ahead(range(100), 3)) == list(range(100))
        assert num_threads() == before

    def test_no_more_than_the_queue_is_read(self):
        taken = []

        def items():
            for number in range(100):
                taken.append(number)
                yield number

        ahead = read_ahead(items(), 3)
        next(ahead)

        assert wait_until(lambda: len(taken) == 5)  # given, three that wait, one in the hand
        time.sleep(0.1)
        assert len(taken) == 5
        ahead.close()

    def test_early_end_closes_the_iterator_in_its_thread(self):
        closed = []
        before = num_threads()

        def items():
            try:
                yield from range(100)
            finally:
                closed.append(threading.current_thread().name)

        for number in (ahead := read_ahead(items(), 2)):
            if number == 5:
                break
        ahead.close()

        assert closed == ["read_ahead"]
        assert num_threads() == before

    def test_error_comes_after_the_items_before_it(self):
        def items():
            yield 1
            yield 2
            raise OSError("gone")

        got = []
        with pytest.raises(OSError, match="gone"):
            got.extend(read_ahead(items()))
        ahead = read_ahead(items())
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(OSError, match="gone"):
            next(ahead)


class TestWriteBehind:
    """A function in a thread."""

    def test_everything_is_written_in_order(self):
        written: list[int] = []
        before = num_threads()
        writer = WriteBehind(written.append, 2)
        for number in range(50):
            writer.put(number)
        writer.close()
        writer.close()

        assert written == list(range(50))
        assert num_threads() == before

    def test_a_full_queue_waits(self):
        gate = threading.Event()
        writer = WriteBehind(lambda _: gate.wait(60), 2)
        for number in range(3):
            writer.put(number)
        blocked = threading.Thread(target=writer.put, args=(3,), daemon=True)
        blocked.start()
        blocked.join(0.1)

        assert blocked.is_alive()
        gate.set()
        blocked.join(60)
        assert not blocked.is_alive()
        writer.close()

    def test_error_stops_the_writer_and_is_raised(self):
        written = []

        def write(number: int) -> None:
            if number == 3:
                raise OSError("disk full")
            written.append(number)

        def put_all(writer: WriteBehind[int]) -> None:
            for number in range(1000):
                writer.put(number)

        writer = WriteBehind(write, 2)
        with pytest.raises(OSError, match="disk full"):
            put_all(writer)
        with pytest.raises(OSError, match="disk full"):
            writer.close()
        assert written == [0, 1, 2]
