"""Writes the reference page of the config keys: ``python -m maskfreevis_ext.config``."""

from __future__ import annotations

import argparse
from pathlib import Path

from maskfreevis_ext.config.reference import reference_page


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m maskfreevis_ext.config",
        description="Write the reference page of all config keys, as Markdown.",
    )
    parser.add_argument("--output", required=True, type=Path, help="such as docs/config.md")
    parser.parse_args().output.write_text(reference_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
