"""Ends a command with one message instead of a traceback: errors of a user, Ctrl-C, SIGTERM."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from maskfreevis_ext.engine.interrupt import (
    INTERRUPTED,
    TERMINATED,
    Terminated,
    terminate_like_interrupt,
)
from maskfreevis_ext.errors import MaskFreeError
from maskfreevis_ext.out_of_memory import describe, is_out_of_memory

USER_ERROR = 2  #: Exit code after a ``MaskFreeError``.


def end_after(error: BaseException) -> tuple[int, str] | None:
    """How a command ends after an error that needs no traceback.

    Args:
        error: What was raised.

    Returns:
        Exit code and message; None: it needs one.
    """
    if isinstance(error, MaskFreeError):
        return USER_ERROR, f"{type(error).__name__}: {error}"
    if isinstance(error, KeyboardInterrupt):
        code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
        return code, str(error.args[0]) if error.args else "Interrupted."
    if is_out_of_memory(error):
        advice = (
            "Close other programs, or give less at once: shorter or smaller videos, fewer"
            " processes."
        )
        return USER_ERROR, f"OutOfMemoryError: {describe(error, advice)}"
    return None


def exit_on_user_error(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function; a ``MaskFreeError`` ends the process with its message and exit code 2.

    So does an error of memory; where a config says what to lower, ``out_of_memory`` has told it.
    Ctrl-C ends it with exit code 130, and SIGTERM with 143, after the clean-up of ``finally`` and
    ``with``; the message is that of the ``KeyboardInterrupt``, if it has one.

    Args:
        function: What to call.
        args: Its arguments.
        kwargs: Its named arguments.

    Returns:
        What the function returns.

    Raises:
        SystemExit: The function raised a ``MaskFreeError``, had not enough memory or was
            interrupted.
    """
    try:
        with terminate_like_interrupt():
            return function(*args, **kwargs)
    except (Exception, KeyboardInterrupt) as error:
        end = end_after(error)
        if end is None:
            raise
        code, message = end
    if message:
        print(f"\n{message}", file=sys.stderr, flush=True)
    sys.exit(code)
