"""What a package index and a fresh machine see of the project."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys

import pytest

from maskfreevis_ext.version import __version__
from tests.helpers.training import ROOT

SETUP = ast.parse((ROOT / "setup.py").read_text())


def _argument(name: str) -> object:
    for node in ast.walk(SETUP):
        if isinstance(node, ast.keyword) and node.arg == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


def _project(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def _requirements() -> list[str]:
    extras = _argument("extras_require").values()
    return [*_argument("install_requires"), *itertools.chain.from_iterable(extras)]


def _pins() -> dict[str, list[tuple[str, str]]]:
    """Project -> (version, marker) of constraints.txt."""
    pins: dict[str, list[tuple[str, str]]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version, marker = re.fullmatch(r"(\S+?)==([^;\s]+)(?:; (.+))?", line).groups()
            pins.setdefault(_project(name), []).append((version, marker or ""))
    return pins


def test_every_requirement_is_a_range_with_a_tested_version():
    pins = _pins()
    for requirement in _requirements():
        name, low = re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement).groups()
        for version, _ in pins[_project(name)]:
            numbers = [[int(n) for n in re.findall(r"\d+", v)] for v in (low, version)]
            assert numbers[0] <= numbers[1], requirement


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_every_python_has_one_version_of_each(python):
    minor = int(python.split(".")[1])
    for name, versions in _pins().items():
        fitting = 0
        for _, marker in versions:
            marker = marker or 'python_version >= "3.0"'
            sign, bound = re.fullmatch(r'python_version (<|>=) "3\.(\d+)"', marker).groups()
            fitting += minor < int(bound) if sign == "<" else minor >= int(bound)
        only_old = all("<" in marker for _, marker in versions)  # what newer ones bring themselves
        assert fitting == (0 if only_old and minor >= 11 else 1), name


def test_nothing_is_required_by_an_unregistered_name_or_an_address():
    for requirement in [*_requirements(), *_pins()]:
        assert "detectron2" not in requirement
        assert "@" not in requirement
        assert ":" not in requirement


def test_every_folder_with_code_is_a_package():
    for path in (ROOT / "maskfreevis_ext").rglob("*.py"):
        if path.parent != ROOT / "maskfreevis_ext" / "embedded":
            assert (path.parent / "__init__.py").is_file(), path


def test_a_build_ships_every_file_of_the_package(tmp_path):
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path)]
    options = ["egg_info", "--egg-base", str(tmp_path)]
    subprocess.run([*command, *options], cwd=ROOT, check=True, capture_output=True, timeout=600)

    def shipped(folder):
        files = (folder / "maskfreevis_ext").rglob("*")
        names = {str(path.relative_to(folder)) for path in files if path.is_file()}
        return {name for name in names if not name.endswith(".pyc")}

    assert shipped(tmp_path / "lib") == shipped(ROOT)


def test_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def _ci_run(tmp_path, said: str, code: int) -> tuple[int, str]:
    """Run .ci/run with a ``make`` that says something and ends."""
    fake = tmp_path / "bin" / "make"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\nexit {code}\n")
    fake.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / ".ci" / "run")],
        env={"PATH": f"{fake.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("said", "code", "expected"),
    [
        ("== 3 passed, 1 skipped in 2.00s ==", 0, (0, "== 3 passed, 1 skipped in 2.00s ==")),
        (
            "== 1 failed in 2.0s (0:00:02) ==\nmake: Error",
            2,
            (2, "== 1 failed in 2.0s (0:00:02) =="),
        ),
        ("== no tests ran in 0.01s ==", 0, (5, "== no tests ran in 0.01s ==")),
        ("lint failed", 2, (2, "pytest did not run to its end")),
        ("nothing", 0, (1, "pytest did not run to its end")),
    ],
)
def test_ci_ends_with_the_closing_line_of_pytest(tmp_path, said, code, expected):
    assert _ci_run(tmp_path, said, code) == expected
