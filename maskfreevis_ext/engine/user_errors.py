"""Ends a command with one message instead of a traceback: errors of a user, and Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch.multiprocessing import ProcessExitedException

from maskfreevis_ext.engine.interrupt import INTERRUPTED
from maskfreevis_ext.errors import MaskFreeError

USER_ERROR = 2  #: Exit code after a ``MaskFreeError``.


def exit_on_user_error(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function; a ``MaskFreeError`` ends the process with its message and exit code 2.

    Ctrl-C ends it with exit code 130 and the message of the ``KeyboardInterrupt``, if it has one.

    Args:
        function: What to call.
        args: Its arguments.
        kwargs: Its named arguments.

    Returns:
        What the function returns.

    Raises:
        SystemExit: The function raised a ``MaskFreeError`` or was interrupted, in this or a child
            process.
        ProcessExitedException: A child process ended with another exit code.
    """
    try:
        return function(*args, **kwargs)
    except MaskFreeError as e:
        print(f"\n{type(e).__name__}: {e}", file=sys.stderr, flush=True)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt as e:
        print(f"\n{e.args[0] if e.args else 'Interrupted.'}", file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)
    except ProcessExitedException as e:
        # The child process has printed its message.
        if e.exit_code not in (USER_ERROR, INTERRUPTED):
            raise
        sys.exit(e.exit_code)
