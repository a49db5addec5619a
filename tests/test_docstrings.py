"""Modules and public functions have docstrings with ``Raises:``; files and functions are short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.training import ROOT

PACKAGE = ROOT / "maskfreevis_ext"
KERNELS = PACKAGE / "losses" / "pairwise" / "triton.py"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if "embedded" not in path.parts]

MOST_LINES_OF_FILE = 400  # without the kernels, which belong together
MOST_LINES_OF_FUNCTION = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef
_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def functions_of(tree: ast.AST, is_public: bool = True) -> Iterator[tuple[Function, str, bool]]:
    """Functions and methods of a module, the docstrings that may describe them, whether public."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions_of(node, is_public and not node.name.startswith("_"))
        elif isinstance(node, Function):
            text = ast.get_docstring(node) or ""
            if node.name == "__init__" and isinstance(tree, ast.ClassDef):
                text += ast.get_docstring(tree) or ""
            is_named = not node.name.startswith("_") or node.name in ("__init__", "__call__")
            yield node, text, is_public and is_named
        else:  # a definition under ``if`` or ``try`` counts as well
            yield from functions_of(node, is_public)


def own_raises(function: Function) -> list[int]:
    """Lines of the ``raise`` statements of a function, without those of functions inside it."""
    found, waiting = [], list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _NESTED):
            continue
        if isinstance(node, ast.Raise) and not _says_abstract(node):
            found.append(node.lineno)
        waiting.extend(ast.iter_child_nodes(node))
    return sorted(found)


def _says_abstract(node: ast.Raise) -> bool:
    """Whether a method only says that subclasses define it."""
    return isinstance(node.exc, ast.Name) and node.exc.id == "NotImplementedError"


def faults_of(source: str) -> list[str]:
    """What a module lacks, with lines."""
    tree = ast.parse(source)
    faults = [] if ast.get_docstring(tree) else ["1: the module has no docstring"]
    for function, text, is_public in functions_of(tree):
        where = f"{function.lineno}: {function.name}"
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > MOST_LINES_OF_FUNCTION:
            faults.append(f"{where} has {length} lines, at most {MOST_LINES_OF_FUNCTION}")
        if is_public and not text:
            faults.append(f"{where} has no docstring")
        lines = own_raises(function)
        if is_public and lines and "Raises:" not in text:
            faults.append(f"{where} raises in line {lines[0]}; its docstring has no 'Raises:'")
    return faults


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_module_is_documented_and_short(path: Path) -> None:
    source = path.read_text()
    assert faults_of(source) == []
    assert path == KERNELS or len(source.splitlines()) <= MOST_LINES_OF_FILE


def test_check_finds_a_raise_without_raises_section() -> None:
    silent = '"""M."""\ndef read() -> None:\n    """Read."""\n    raise ValueError\n'
    assert faults_of(silent) == ["2: read raises in line 4; its docstring has no 'Raises:'"]
    assert (
        faults_of(silent.replace('Read."""', 'Read.\n\n    Raises:\n        ValueError.\n    """'))
        == []
    )
    assert faults_of(silent.replace("def read", "def _read")) == []


def test_check_leaves_a_function_inside_to_itself_and_finds_a_class_docstring() -> None:
    assert faults_of('"""M."""\ndef f():\n    """F."""\n    def g():\n        raise E\n') == []
    with_class = '"""M."""\nclass A:\n    """A.\n\n    Raises:\n        E.\n    """\n'
    assert faults_of(with_class + "    def __init__(self):\n        raise E\n") == []


def test_check_finds_a_long_function_and_a_module_without_docstring() -> None:
    long = "def f():\n" + '    """F."""\n' + "    x = 1\n" * MOST_LINES_OF_FUNCTION
    assert len(faults_of(long)) == 2
