"""The automatic tests cover what setup.py promises, and run no action that can change."""

from __future__ import annotations

import re

import yaml

from tests.helpers.training import ROOT

TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
JOBS = yaml.safe_load(TEXT)["jobs"]


def test_actions_are_pinned_by_hash() -> None:
    used = re.findall(r"uses: (\S+)", TEXT)
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)


def test_matrix_is_what_setup_and_constraints_say() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    matrix = JOBS["test"]["strategy"]["matrix"]
    assert matrix["python"] == re.findall(r"Python :: (3\.\d+)", setup)
    oldest = re.search(r'"torch>=([\d.]+)"', setup)
    newest = re.search(r"^torch==(\S+)$", constraints, re.MULTILINE)
    assert oldest
    assert newest
    assert matrix["torch"] == [f"{oldest[1]}.0", newest[1]]
    kinds = {*matrix["detectron2"], *(extra["detectron2"] for extra in matrix["include"])}
    assert kinds == {"embedded", "real"}


def test_commands_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"run: make ([\w-]+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
