"""The command line: one subcommand for each module of ``COMMANDS``.

A subcommand is a module with ``NAME``, ``HELP`` (one line), ``EXAMPLE`` (lines of a command),
``add_arguments(parser)`` and ``run(args)``, which returns the exit code.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Protocol

from experiments import grid, real, report
from maskfreevis_ext.engine.user_errors import exit_on_user_error


class Command(Protocol):
    """What the module of a subcommand offers."""

    NAME: str
    HELP: str
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work; gives the exit code."""


#: A new subcommand is one more module here.
COMMANDS: tuple[Command, ...] = (grid, report, real)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: The words behind the name of the program; None: those of this process.
    """
    examples = "\n\n".join(command.EXAMPLE.strip("\n") for command in COMMANDS)
    parser = argparse.ArgumentParser(
        description="Train grids of configs and seeds and report them; measure masks of boxes.",
        epilog=f"examples:\n\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        own = subparsers.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.HELP,
            epilog=f"example:\n\n{command.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; an error of the user ends with one line and exit code 2.

    Args:
        argv: As in ``parse_args``.
    """
    args = parse_args(argv)
    return exit_on_user_error(args.run, args)
