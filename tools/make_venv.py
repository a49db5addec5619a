#!/usr/bin/env python3
"""Make a virtual environment with pip, also with a Python that has none, as Debian's.

tools/make_venv.py FOLDER
"""

from __future__ import annotations

import hashlib
import html.parser
import importlib.util
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import venv


class _Links(html.parser.HTMLParser):
    """The addresses of a page of a package index."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address of a link whose file was not withdrawn."""
        values = dict(attrs)
        if tag == "a" and values.get("href") and "data-yanked" not in values:
            self.hrefs.append(values["href"])


def _version(href: str) -> tuple[int, ...]:
    parts = href.rsplit("/", 1)[1].split("-")[1].split(".")
    return tuple(int(p) for p in parts) if all(p.isdigit() for p in parts) else ()


def download_pip(folder: str) -> str:
    """Fetch pip's newest wheel from the package index and compare its checksum.

    Args:
        folder: Where to put it.

    Returns:
        The path of the wheel.
    """
    page = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    if not page.startswith("https://"):
        sys.exit(f"PIP_INDEX_URL: expected an https address, got {page}.")
    links = _Links()
    with urllib.request.urlopen(page) as response:  # noqa: S310 (https, see above)
        links.feed(response.read().decode())
    wheels = [h for h in links.hrefs if urllib.parse.urlsplit(h).path.endswith("-py3-none-any.whl")]
    address, _, checksum = urllib.parse.urljoin(page, max(wheels, key=_version)).partition(
        "#sha256="
    )
    with urllib.request.urlopen(address) as response:  # noqa: S310
        content = response.read()
    if hashlib.sha256(content).hexdigest() != checksum:
        sys.exit(f"{address}: the checksum does not fit the one of the index.")
    path = os.path.join(folder, address.rsplit("/", 1)[1])
    with open(path, "wb") as f:
        f.write(content)
    return path


def main() -> None:
    """Make the environment named on the command line."""
    folder = sys.argv[1]
    has_pip = importlib.util.find_spec("ensurepip") is not None
    venv.create(folder, with_pip=has_pip, clear=True, symlinks=True)
    if has_pip:
        return
    python = os.path.join(folder, "bin", "python")
    with tempfile.TemporaryDirectory() as temporary:
        wheel = download_pip(temporary)
        subprocess.check_call([python, os.path.join(wheel, "pip"), "install", wheel])  # noqa: S603


if __name__ == "__main__":
    main()
