"""Errors that a user can mend end a command with one clear message, not with a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch.multiprocessing import ProcessExitedException

from maskfreevis_ext.errors import MaskFreeError

USER_ERROR = 2  #: Exit code after a ``MaskFreeError``.


def exit_on_user_error(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function, and end the process with exit code 2 and one message if it raises a ``MaskFreeError``.

    Args:
        function: What to call.
        args: Its arguments.
        kwargs: Its named arguments.

    Returns:
        What the function returns.
    """
    try:
        return function(*args, **kwargs)
    except MaskFreeError as e:
        print(f"\n{type(e).__name__}: {message_of(e)}", file=sys.stderr, flush=True)
    except ProcessExitedException as e:
        if e.exit_code != USER_ERROR:  # else the process has said its message already
            raise
    sys.exit(USER_ERROR)


def message_of(error: MaskFreeError) -> str:
    """The message of an error, without the traceback that PyTorch wraps it in when a loader's worker raised it.

    Args:
        error: The error, from this process or passed on from a worker.

    Returns:
        Its message.
    """
    text = str(error)
    if not text.startswith("Caught "):
        return text
    for marker in (f".{type(error).__name__}: ", f"{type(error).__name__}: "):
        _, found, message = text.rpartition(marker)
        if found:
            return message.strip()
    return text
