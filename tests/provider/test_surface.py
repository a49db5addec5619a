"""Every name of Detectron2 that the project uses exists, and takes the arguments it gets."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import maskfreevis_ext

REPO = Path(maskfreevis_ext.__file__).resolve().parents[1]
#: Parts of Detectron2's classes that are not public, but that subclasses of ours build on.
BUILT_ON = {
    "detectron2.engine.SimpleTrainer": ("_data_loader_iter",),
    "detectron2.checkpoint.DetectionCheckpointer": (
        "_load_file",
        "_load_model",
        "_log_incompatible_keys",
    ),
}


class Use(NamedTuple):
    """A name of Detectron2 in a file of ours; ``call`` if it is called."""

    file: str
    line: int
    name: str
    call: ast.Call | None


def _files() -> list[Path]:
    roots = [REPO / "maskfreevis_ext", REPO / "tools", REPO / "datasets"]
    files = [path for root in roots if root.is_dir() for path in sorted(root.rglob("*.py"))]
    return [path for path in files if "embedded" not in path.relative_to(REPO).parts]


def _bindings(tree: ast.AST) -> dict[str, str]:
    """Local name -> dotted name in Detectron2, for every import of a file."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("detectron2"):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "detectron2":
                    found[alias.asname or "detectron2"] = (
                        alias.name if alias.asname else "detectron2"
                    )
    return found


def _dotted(node: ast.expr) -> list[str] | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *parts[::-1]] if isinstance(node, ast.Name) else None


def _uses(path: Path) -> Iterator[Use]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bindings = _bindings(tree)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    file = str(path.relative_to(REPO))
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Name, ast.Attribute)):
            continue
        parts = _dotted(node)
        if parts and parts[0] in bindings:
            name = ".".join([bindings[parts[0]], *parts[1:]])
            yield Use(file, node.lineno, name, calls.get(id(node)))
    for name in bindings.values():  # names that are imported and not used otherwise
        yield Use(file, 1, name, None)


def _resolve(name: str) -> Any:
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:size]))
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("detectron2"):
                raise
            continue
        for part in parts[size:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def _fails_to_bind(target: Any, call: ast.Call) -> str | None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return None
    unpacks = any(isinstance(arg, ast.Starred) for arg in call.args)
    unpacks |= any(keyword.arg is None for keyword in call.keywords)
    arguments = [None for arg in call.args if not isinstance(arg, ast.Starred)]
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
    if call.args and hasattr(target, "from_config"):
        # A config in place of the arguments: keywords may belong to either function.
        known = {*signature.parameters, *inspect.signature(target.from_config).parameters}
        unknown = sorted(set(keywords) - known)
        return f"unknown arguments {unknown}" if unknown else None
    bind = signature.bind_partial if unpacks else signature.bind
    try:
        bind(*arguments, **keywords)
    except TypeError as error:
        return str(error)
    return None


USES = [use for path in _files() for use in _uses(path)]


def test_project_uses_detectron2_at_all() -> None:
    assert len({use.name for use in USES}) > 30


@pytest.mark.parametrize("name", sorted({use.name for use in USES}))
def test_name_exists_and_takes_its_arguments(name: str) -> None:
    places = [use for use in USES if use.name == name]
    try:
        target = _resolve(name)
    except (AttributeError, ModuleNotFoundError) as error:
        pytest.fail(f"{name}, used in {places[0].file}:{places[0].line}: {error}")
    for use in places:
        problem = _fails_to_bind(target, use.call) if use.call is not None else None
        assert problem is None, f"{use.file}:{use.line}: {name}: {problem}"


def _subclasses() -> Iterator[tuple[str, str, str]]:
    """(file, base class in Detectron2, method that calls its own namesake in the base)."""
    for path in _files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bindings = _bindings(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            bases = [_dotted(base) for base in node.bases]
            names = [".".join([bindings[b[0]], *b[1:]]) for b in bases if b and b[0] in bindings]
            for call in ast.walk(node):
                func = call.func if isinstance(call, ast.Call) else None
                if (
                    isinstance(func, ast.Attribute)
                    and isinstance(func.value, ast.Call)
                    and isinstance(func.value.func, ast.Name)
                    and func.value.func.id == "super"
                    and not func.value.args
                    and names
                ):
                    yield str(path.relative_to(REPO)), names[0], func.attr


@pytest.mark.parametrize(("file", "base", "method"), sorted(set(_subclasses())))
def test_base_class_has_the_method_that_is_extended(file: str, base: str, method: str) -> None:
    assert hasattr(_resolve(base), method), f"{file} calls super().{method} of {base}"


@pytest.mark.parametrize("name", sorted(BUILT_ON))
def test_parts_of_base_classes_that_are_built_on_exist(name: str) -> None:
    target = _resolve(name)
    for part in BUILT_ON[name]:
        assert hasattr(target, part), f"{name}.{part}"


def _identifiers(path: Path) -> set[str]:
    """Names that a file uses, other than in import lines and ``__all__``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    return names


def test_embedded_package_has_nothing_that_nobody_uses() -> None:
    embedded = sorted((REPO / "maskfreevis_ext" / "embedded").rglob("*.py"))
    used = {name for path in _files() for name in _identifiers(path)}
    used |= {use.name.rsplit(".", 1)[-1] for use in USES}
    inside = {path: _identifiers(path) for path in embedded}
    unused = []
    for path in embedded:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                continue
            if any(isinstance(d, ast.Call) for d in node.decorator_list):
                continue  # registered, as by BACKBONE_REGISTRY.register()
            if node.name not in used and not any(node.name in names for names in inside.values()):
                unused.append(f"{path.name}: {node.name}")
    assert unused == []


def test_embedded_package_imports_nothing_of_the_project() -> None:
    for path in sorted((REPO / "maskfreevis_ext" / "embedded").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "maskfreevis_ext" for name in names), path
