"""Ends a command with one message instead of a traceback: errors of a user, Ctrl-C, SIGTERM."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch.multiprocessing import ProcessExitedException

from maskfreevis_ext.engine.interrupt import (
    INTERRUPTED,
    TERMINATED,
    Terminated,
    terminate_like_interrupt,
)
from maskfreevis_ext.errors import MaskFreeError
from maskfreevis_ext.out_of_memory import is_out_of_memory

USER_ERROR = 2  #: Exit code after a ``MaskFreeError``.


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
            interrupted, in this or a child process.
        ProcessExitedException: A child process ended with another exit code.
    """
    try:
        with terminate_like_interrupt():
            return function(*args, **kwargs)
    except MaskFreeError as e:
        print(f"\n{type(e).__name__}: {e}", file=sys.stderr, flush=True)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt as e:
        message = e.args[0] if e.args else "Interrupted."
        if message:
            print(f"\n{message}", file=sys.stderr, flush=True)
        sys.exit(TERMINATED if isinstance(e, Terminated) else INTERRUPTED)
    except ProcessExitedException as e:
        # The child process has printed its message.
        if e.exit_code not in (USER_ERROR, INTERRUPTED, TERMINATED):
            raise
        sys.exit(e.exit_code)
    except Exception as e:
        if not is_out_of_memory(e):
            raise
        first = str(e).splitlines()[0] if str(e) else type(e).__name__
        print(
            f"\nOutOfMemoryError: Out of memory ({first[:200]}). Close other programs, or give less"
            " at once: shorter or smaller videos, fewer processes.",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(USER_ERROR)
