"""Writes the reference page of the config keys: ``python -m maskfreevis_ext.config``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from maskfreevis_ext.config.reference import TITLE, reference_page
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.files import atomic_write, check_outputs


def write_page(path: Path, overwrite: bool) -> None:
    """Write the page; an earlier one is replaced.

    Args:
        path: The file.
        overwrite: Whether a file that is no such page may be replaced.

    Raises:
        DataError: The file is there and is no such page, or cannot be written.
    """
    check_outputs([path], overwrite=overwrite or _is_page(path))
    try:
        with atomic_write(path) as file:
            file.write(reference_page().encode())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error


def _is_page(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(len(TITLE)) == TITLE
    except (OSError, ValueError):
        return False


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m maskfreevis_ext.config",
        description="Write the reference page of all config keys, as Markdown.",
    )
    parser.add_argument("--output", required=True, type=Path, help="such as docs/config.md")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that is no such page"
    )
    args = parser.parse_args(argv)
    try:
        write_page(args.output, args.overwrite)
    except DataError as error:
        parser.exit(2, f"DataError: {error}\n")


if __name__ == "__main__":
    main()
