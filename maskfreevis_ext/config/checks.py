"""Checks of config values, each with a text of what is expected, for error messages."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A test of one value, and the text that error messages and the reference page give for it.

    Attributes:
        test: Whether a value is allowed. It must not raise, whatever the type of the value.
        expected: The allowed values in words, to follow "expected" in a sentence.
    """

    test: Callable[[object], bool]
    expected: str


def _number(value: object) -> float:
    """The value if it is a finite number, otherwise NaN, which fails every comparison."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return value if math.isfinite(value) else math.nan
        except OverflowError:  # an integer beyond the range of float
            return math.nan
    return math.nan


def shorten(value: object, limit: int = 200) -> str:
    """A value as text for a message.

    Args:
        value: A text, which stands as it is, or anything else, of which its ``repr`` stands.
        limit: Longest text, in characters.
    """
    try:
        text = value if isinstance(value, str) else repr(value)
    except ValueError:  # Python writes no integers of more than 4300 digits
        return "a number of too many digits"
    return text if len(text) <= limit else f"{text[:limit]}..."


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def one_of(*values: str) -> Check:
    """One of a few strings."""
    return Check(lambda v: isinstance(v, str) and v in values, "one of " + ", ".join(values))


def matching(pattern: str, expected: str) -> Check:
    """A string that matches a regular expression from its beginning to its end."""
    return Check(lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None, expected)


def at_least(low: float) -> Check:
    """A finite number >= ``low``."""
    return Check(lambda v: _number(v) >= low, f"a number, at least {low}")


def at_most(high: float) -> Check:
    """A finite number <= ``high``."""
    return Check(lambda v: _number(v) <= high, f"a number, at most {high}")


def above(low: float) -> Check:
    """A finite number > ``low``."""
    return Check(lambda v: _number(v) > low, f"a number, more than {low}")


def integer(low: int) -> Check:
    """An integer >= ``low``."""
    return Check(lambda v: _is_integer(v) and _number(v) >= low, f"an integer, at least {low}")


def optional(check: Check) -> Check:
    """None, or a value that passes ``check``."""
    return Check(lambda v: v is None or check.test(v), f"None, or {check.expected}")


def list_of(check: Check, each: str, length: int | None = None, low: int = 0) -> Check:
    """A list or tuple whose entries all pass ``check``.

    Args:
        check: Check of each entry.
        each: The entries in words, plural, such as "integers, at least 1".
        length: Number of entries; None: any number, at least ``low``.
        low: Least number of entries.
    """

    def test(value: object) -> bool:
        if not isinstance(value, (list, tuple)):
            return False
        is_long_enough = len(value) == length if length is not None else len(value) >= low
        return is_long_enough and all(check.test(entry) for entry in value)

    count = f"{length} " if length is not None else f"{low} or more " if low else ""
    return Check(test, f"a list of {count}{each}")


def either(first: Check, second: Check) -> Check:
    """A value that passes one of two checks."""
    return Check(
        lambda v: first.test(v) or second.test(v), f"{first.expected}, or {second.expected}"
    )


#: True or False.
BOOLEAN = Check(lambda v: isinstance(v, bool), "True or False")
#: Any string.
TEXT = Check(lambda v: isinstance(v, str), "a string")
#: The name of a class or of a backbone's feature map.
NAME = Check(lambda v: isinstance(v, str) and bool(v), "a name")
#: A list of such names.
NAMES = list_of(NAME, "names", low=1)
#: A fraction, 0 and 1 included.
FRACTION = Check(lambda v: 0.0 <= _number(v) <= 1.0, "a number in [0, 1]")
#: A range of fractions.
SHARES = Check(
    lambda v: (
        isinstance(v, (list, tuple))
        and len(v) == 2
        and 0.0 <= _number(v[0]) <= _number(v[1]) <= 1.0
    ),
    "a list of 2 numbers, 0 <= least <= largest <= 1",
)
#: A fraction above 0.
POSITIVE_FRACTION = Check(lambda v: 0.0 < _number(v) <= 1.0, "a number in (0, 1]")
#: A dropout probability.
DROP_RATE = Check(lambda v: 0.0 <= _number(v) < 1.0, "a number in [0, 1)")
#: The side of a window with a centre.
ODD = Check(
    lambda v: _is_integer(v) and _number(v) >= 1 and _number(v) % 2 == 1,
    "an odd integer, at least 1",
)
#: Mean or standard deviation of the pixels.
THREE_CHANNELS = list_of(
    Check(lambda v: not math.isnan(_number(v)), "a number"), "numbers, one per channel", length=3
)
#: For keys that nothing reads.
ANYTHING = Check(lambda v: True, "anything")
