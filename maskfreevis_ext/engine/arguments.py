"""Options that several command lines have: the same name and meaning in each."""

from __future__ import annotations

import argparse


def score(text: str) -> float:
    """Parse a score of a command line.

    Args:
        text: A number in [0, 1].

    Raises:
        argparse.ArgumentTypeError: It is something else.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # also where it is nan
        raise argparse.ArgumentTypeError(f"expected a number in 0..1, got {text!r}")
    return value


def add_confidence(parser: argparse.ArgumentParser) -> None:
    """Declare ``--confidence``, the least score of what is shown.

    Args:
        parser: Of the tool.
    """
    parser.add_argument(
        *("--confidence", "--confidence-threshold"),
        dest="confidence",
        type=score,
        default=0.3,
        help="least score of what is drawn and written (default %(default)s)",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Declare ``--overwrite``, for ``files.check_outputs``.

    Args:
        parser: Of the tool.
    """
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that were not made by such a tool or were changed since",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Declare ``--device``.

    Args:
        parser: Of the tool.
    """
    parser.add_argument(
        "--device", help='"cpu" or "cuda", for example (default: MODEL.DEVICE of the config)'
    )


def add_opts(parser: argparse.ArgumentParser) -> None:
    """Declare ``--opts``, which takes the rest of the command line.

    Args:
        parser: Of the tool.
    """
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides; the last option",
    )
