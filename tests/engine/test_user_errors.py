"""What ends a command with one line, and the exit codes."""

from __future__ import annotations

import signal

import pytest

from maskfreevis_ext.engine.interrupt import Terminated
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.files import atomic_write


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("a.json: is empty."), 2, "DataError: a.json: is empty."),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (KeyboardInterrupt("Stopped; call it again."), 130, "Stopped; call it again."),
        (KeyboardInterrupt(""), 130, ""),
        (Terminated("Stopped; call it again."), 143, "Stopped; call it again."),
    ],
)
def test_errors_of_the_user_and_interrupts_are_one_line(error, code, line, capsys):
    with pytest.raises(SystemExit) as stop:
        exit_on_user_error(fail, error)

    assert stop.value.code == code
    assert capsys.readouterr().err.strip() == line


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")],
)
def test_want_of_memory_is_one_line(error, capsys):
    with pytest.raises(SystemExit) as stop:
        exit_on_user_error(fail, error)
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().startswith("OutOfMemoryError: Out of memory (")


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="a fault"):
        exit_on_user_error(fail, RuntimeError("a fault"))


def test_sigterm_leaves_no_unfinished_file(tmp_path, capsys):
    """All tools end through this function, and write their files in such blocks."""

    def work() -> None:
        with atomic_write(tmp_path / "results.json") as file:
            file.write(b"[")
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as stop:
        exit_on_user_error(work)
    assert stop.value.code == 143
    assert capsys.readouterr().err.strip() == "Stopped by SIGTERM."
    assert not list(tmp_path.iterdir())


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_on_user_error(fail, ZeroDivisionError())


def test_what_the_function_returns_is_returned():
    assert exit_on_user_error(divmod, 7, 2) == (3, 1)
