"""What the lines of the log may hold, on the terminal and in ``log.txt``."""

from __future__ import annotations

import logging
import re
import sys

from maskfreevis_ext.errors import visible

_LOGGERS = ("maskfreevis_ext", "detectron2", "fvcore")
#: Colours and bold or underlined text, in which fvcore writes the names of parameters.
_COLORS = re.compile("(\x1b\\[(?:[0-5]|[39][0-7])?m)")


class VisibleText(logging.Filter):
    """Writes characters that act on a terminal, such as those of names in files, as text."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; all are kept."""
        try:
            text = record.getMessage()
        except Exception:  # a wrong number of arguments: logging itself says so
            return True
        parts = _COLORS.split(text)  # every second part is a colour
        parts[::2] = map(visible, parts[::2])
        record.msg, record.args = "".join(parts), ()
        return True


def clean_lines() -> None:
    """Let the handlers of the project's and Detectron2's loggers write visible text only.

    The terminal gets no lines of the level DEBUG, such as tracebacks of errors that end with one
    clear line; the file gets them.
    """
    for name in _LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if not any(isinstance(one, VisibleText) for one in handler.filters):
                handler.addFilter(VisibleText())
            is_terminal = getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
            if is_terminal and handler.level < logging.INFO:
                handler.setLevel(logging.INFO)
