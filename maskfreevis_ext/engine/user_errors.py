"""Ends a command with one message instead of a traceback for errors that a user can fix."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch.multiprocessing import ProcessExitedException

from maskfreevis_ext.errors import MaskFreeError

USER_ERROR = 2  #: Exit code after a ``MaskFreeError``.


def exit_on_user_error(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function; a ``MaskFreeError`` ends the process with its message and exit code 2.

    Args:
        function: What to call.
        args: Its arguments.
        kwargs: Its named arguments.

    Returns:
        What the function returns.

    Raises:
        SystemExit: The function raised a ``MaskFreeError``, in this or a child process.
        ProcessExitedException: A child process ended with another exit code.
    """
    try:
        return function(*args, **kwargs)
    except MaskFreeError as e:
        print(f"\n{type(e).__name__}: {e}", file=sys.stderr, flush=True)
    except ProcessExitedException as e:
        if e.exit_code != USER_ERROR:  # otherwise the child process has printed its message
            raise
    sys.exit(USER_ERROR)
