"""Ctrl-C and SIGTERM ask first."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from maskfreevis_ext.engine import interrupt
from maskfreevis_ext.engine.interrupt import (
    StopOnInterrupt,
    Terminated,
    terminate_at_once,
    terminate_like_interrupt,
)

SIGNALS = [(signal.SIGINT, KeyboardInterrupt, 130), (signal.SIGTERM, Terminated, 143)]


@pytest.mark.parametrize(("number", "error", "code"), SIGNALS)
def test_first_signal_asks_and_the_second_stops(capfd, number, error, code):
    before = signal.getsignal(number)

    with StopOnInterrupt("Completing the files.") as stop:
        assert not stop.is_requested
        signal.raise_signal(number)
        assert stop.is_requested
        assert stop.exit_code == code
        with pytest.raises(KeyboardInterrupt) as second:
            signal.raise_signal(number)

    assert type(second.value) is error
    assert signal.getsignal(number) == before
    assert capfd.readouterr().err.count("Completing the files.") == 1


def test_signal_is_left_alone_in_other_threads():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with StopOnInterrupt("") as stop:
            seen.append(stop.is_requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [False]
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(("number", "error", "code"), SIGNALS)
def test_first_signal_raises_where_nothing_would_be_lost(number, error, code):
    with StopOnInterrupt("") as stop:
        with pytest.raises(KeyboardInterrupt) as first, stop.at_once():
            signal.raise_signal(number)
        assert type(first.value) is error
        assert stop.exit_code == code
        reached = []
        with pytest.raises(KeyboardInterrupt), stop.at_once():
            reached.append(1)
    assert not reached


def test_process_that_cannot_handle_the_signal_is_ended(monkeypatch):
    """As one that waits for another process that is gone; here, in which no handler runs."""
    ended = threading.Event()
    monkeypatch.setattr(interrupt, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(interrupt, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(os, "_exit", lambda code: ended.set() if code == 143 else None)
    with StopOnInterrupt("", is_one_of_several=True) as stop:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.6)
        assert stop.is_requested
        assert not ended.is_set()
        os.write(stop._pipe, bytes([signal.SIGINT]))
        os.write(stop._pipe, bytes([signal.SIGTERM]))  # what the interpreter writes at once
        monkeypatch.setattr(stop, "_handled", time.monotonic() - 10)
        assert ended.wait(60)


def test_process_that_has_handled_the_signal_goes_on_however_late_that_is_noticed(monkeypatch):
    noticed, wait = threading.Event(), interrupt.connection.wait

    def wait_and_be_late(*args):
        ready = wait(*args)
        if ready:
            time.sleep(1.2)
            noticed.set()
        return ready

    codes: list[int] = []
    monkeypatch.setattr(interrupt, "STUCK_SECONDS", 0.1)
    monkeypatch.setattr(interrupt.connection, "wait", wait_and_be_late)
    monkeypatch.setattr(os, "_exit", codes.append)
    with StopOnInterrupt("", is_one_of_several=True) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert noticed.wait(60)
        time.sleep(0.5)
        assert stop.is_requested
    assert codes == []


def test_sigterm_lets_finally_run():
    with pytest.raises(Terminated), terminate_like_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with terminate_like_interrupt():
        terminate_at_once()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
