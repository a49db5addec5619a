"""Options that several command lines have: the same name and meaning in each."""

from __future__ import annotations

import argparse


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
