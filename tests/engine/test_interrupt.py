"""Ctrl-C asks first."""

from __future__ import annotations

import signal
import threading

import pytest

from maskfreevis_ext.engine.interrupt import StopOnInterrupt


def test_first_interrupt_asks_and_the_second_stops(capsys):
    before = signal.getsignal(signal.SIGINT)

    with StopOnInterrupt("Completing the files.") as stop:
        assert not stop.is_requested
        signal.raise_signal(signal.SIGINT)
        assert stop.is_requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) == before
    assert capsys.readouterr().err.count("Completing the files.") == 1


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
