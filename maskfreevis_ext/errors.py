"""Errors that a user can cause and fix; messages say what was expected, given, and where."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

#: Characters that act on a terminal, or hide or turn round what stands beside them: control
#: characters but for tab and line break, marks of the direction of writing, lone surrogates.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def visible(text: str) -> str:
    r"""A text with characters that act on a terminal written as Python writes them: \x1b.

    Args:
        text: Such as a message with a name that a file holds.
    """
    return _ACTING.sub(lambda found: repr(found[0])[1:-1], text)


def first_line(error: object) -> str:
    """The first line of a message; the name of its type for an error without any.

    Args:
        error: An error, or a text.
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def first_few(texts: Sequence[str], limit: int = 5, separator: str = ", ") -> str:
    """The first of some texts in one line, with dots if there are more.

    Args:
        texts: Such as the names of all files that are missing.
        limit: So many are shown.
        separator: What stands between them.

    Example:
        >>> first_few(["a", "b", "c"], limit=2)
        'a, b, ...'
    """
    return separator.join([*texts[:limit], *(["..."] if len(texts) > limit else [])])


def signal_name(number: int) -> str:
    """Name of a signal for messages, such as SIGKILL.

    Args:
        number: Of the signal; some, such as those for real time, have no name.
    """
    known = {member.value: member.name for member in signal.Signals}
    return known.get(number, f"signal {number}")


class MaskFreeError(Exception):
    """Base class of this project's errors for users; command lines print only their message."""

    def __str__(self) -> str:
        """The message, without characters that act on a terminal."""
        return visible(super().__str__())


class ConfigError(MaskFreeError, ValueError):
    """A config key has a value that cannot work, alone or together with another key."""


class DataError(MaskFreeError, ValueError):
    """An annotation file, image or video cannot be used; names the file, the id and the field."""


class CheckpointError(MaskFreeError, RuntimeError):
    """A weights file cannot be read, or is not allowed to be read (it would run code)."""


class NumericError(MaskFreeError, FloatingPointError):
    """NaN or Inf where a finite number is needed; names the tensor and the place."""
