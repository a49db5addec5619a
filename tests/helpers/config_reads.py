"""Which config keys the source of a package reads, found in its syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

#: Folders below the package that do not count as readers.
NO_READERS = ("config", "embedded")


def read_keys(package: Path) -> set[str]:
    """Dotted names that are read from a config, such as "MODEL.MASKFREE.TEMPORAL.TOP_K".

    A config is whatever is called ``cfg``, ``self.cfg`` or ``self._cfg``. A local name for a
    section of it (``node = cfg.MODEL.MASKFREE``) is followed inside its function. A form that this
    does not follow makes a key look unread, which fails a test, and never the other way round.
    The ``row`` of a loss term is read too, by ``LossTerm.from_config``.
    """
    found: set[str] = set()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] in NO_READERS:
            continue
        _Reads(found).visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


class _Reads(ast.NodeVisitor):
    """Collects the longest chains of upper-case attributes of a config in ``found``."""

    def __init__(self, found: set[str]) -> None:
        self.found = found
        self.sections: dict[str, str] = {}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self.sections = self.sections, dict(self.sections)
        self.generic_visit(node)
        self.sections = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            match statement:
                case ast.Assign([ast.Name("row")], ast.Constant(str(key))):
                    self.found.add(key)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for name, value in pairs:
                if isinstance(name, ast.Name):
                    section = self._path(value)
                    self.sections.pop(name.id, None)
                    if section:
                        self.sections[name.id] = section

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = self._path(node)
        if path is None:
            self.generic_visit(node)
        elif path and isinstance(node.ctx, ast.Load):
            self.found.add(path)

    def _path(self, node: ast.expr) -> str | None:
        """The key that an expression stands for, "" for the config itself, None for no key."""
        if isinstance(node, ast.Name):
            return "" if node.id == "cfg" else self.sections.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            return "" if node.attr in ("cfg", "_cfg") else None
        outer = self._path(node.value)
        if outer is None:
            return None
        if not node.attr.isupper():  # a method of a value, such as removesuffix
            return outer
        return f"{outer}.{node.attr}" if outer else node.attr
