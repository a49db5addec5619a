"""Safety of YAML files: plain data of a bounded size, and a bounded number of ``_BASE_`` files.

Detectron2's ``merge_from_file`` runs Python tags by default, and builds whatever aliases and merge
keys expand to, so every file is checked here first. What it would expand to is counted on the nodes
of the parsed text, before anything is built of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import yaml

from maskfreevis_ext.errors import ConfigError

MAX_BYTES = 1 << 17  #: Largest file, and most bytes of a config file and its bases together.
MAX_DEPTH = 32  #: Longest chain of ``_BASE_`` files, and deepest nesting inside a file.
MAX_FILES = 64  #: Most ``_BASE_`` files of a config file; one that is named twice counts twice.
MAX_NODES = 5_000  #: Most values of a file after its aliases and merge keys are expanded.
MAX_TEXT = 16_384  #: Longest text, in characters.
MAX_DIGITS = 100  #: Longest number, in characters.

_TAG = "tag:yaml.org,2002:"
_NUMBERS = (_TAG + "int", _TAG + "float")


def check_yaml_file(path: str) -> list[str]:
    """Make sure that a config file and all its ``_BASE_`` files hold plain data.

    Args:
        path: A YAML file.

    Returns:
        The real paths of the files, the given one first; one that is named twice stands twice.

    Raises:
        ConfigError: A file is missing, too large (also what it expands to), not YAML, not a
            mapping, holds a Python tag, names itself (directly or not) as its base, or there are
            too many of them.
    """
    chain = _Chain(path)
    chain.follow(path, ())
    return chain.visited


class _Chain:
    """A config file and its bases.

    Attributes:
        visited: Real paths, in the order in which they are read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._bases_of: dict[str, list[str]] = {}
        self._bytes_left = MAX_BYTES
        self.visited: list[str] = []

    def follow(self, path: str, chain: tuple[str, ...]) -> None:
        """Check a file, then its bases.

        Raises:
            ConfigError: See ``check_yaml_file``.
        """
        real = os.path.realpath(path)
        if real in chain:
            files = " -> ".join([*chain[chain.index(real) :], real])
            raise ConfigError(
                f"_BASE_ of {chain[-1]} leads in a circle: {files}. Remove one of these lines."
            )
        if len(chain) >= MAX_DEPTH:
            raise ConfigError(
                f"{self._path}: expected at most {MAX_DEPTH} _BASE_ files in a row, got more."
            )
        if len(self.visited) > MAX_FILES:
            raise ConfigError(
                f"{self._path}: expected at most {MAX_FILES} _BASE_ files in all, got more (each"
                " time that a file is named counts)."
            )
        if real not in self._bases_of:
            self._bases_of[real] = list(_bases(self._read(path, chain), path))
        self.visited.append(real)
        for base in self._bases_of[real]:
            self.follow(base, (*chain, real))

    def _read(self, path: str, chain: tuple[str, ...]) -> dict:
        where = f"Config file {path}" + (f" (_BASE_ of {chain[-1]})" if chain else "")
        if "://" in path:
            raise ConfigError(
                f"{where}: expected a file on this machine, got an address. Download it first."
            )
        if not os.path.isfile(path):
            raise ConfigError(f"{where} does not exist (looked from {os.getcwd()}).")
        try:
            with open(path, "rb") as file:
                data = file.read(self._bytes_left + 1)
            text = data.decode()
        except OSError as e:
            raise ConfigError(f"{where} cannot be read: {e.strerror or e}.") from None
        except UnicodeDecodeError as e:
            if len(data) <= self._bytes_left:
                raise ConfigError(f"{where} is not UTF-8 text: {e}.") from None
        if len(data) > self._bytes_left:
            together = " together with the files before it" if chain else ""
            raise ConfigError(f"{where}: expected at most {MAX_BYTES} bytes{together}, got more.")
        self._bytes_left -= len(data)
        content = read_plain_yaml(text, where)
        if not isinstance(content, dict):
            raise ConfigError(f"{where}: expected keys and values, got {type(content).__name__}.")
        return content


def _bases(content: dict, path: str) -> Iterator[str]:
    base = content.get("_BASE_")
    if base is None:
        return
    for name in base if isinstance(base, list) else [base]:
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"{path}: _BASE_: expected a file name or a list of them, got {name!r}."
            )
        if "://" in name:
            raise ConfigError(
                f"{path}: _BASE_: expected a file on this machine, got the address {name}. "
                "Download it first."
            )
        yield os.path.join(os.path.dirname(path), os.path.expanduser(name))


def read_plain_yaml(text: str, where: str) -> Any:
    """Read YAML that a stranger may have written.

    Args:
        text: The text, of at most ``MAX_BYTES`` characters.
        where: The file, as the beginning of messages.

    Returns:
        Dicts, lists, texts, numbers, truth values, dates and None.

    Raises:
        ConfigError: It is too large, not YAML, has a tag that is not of plain data, or expands to
            more than ``MAX_NODES`` values.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: expected at most {MAX_BYTES} characters, got {len(text)}.")
    loader = None
    try:
        loader = _BoundedLoader(text, where)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_expansion(node, where)
        return loader.construct_document(node)
    except yaml.constructor.ConstructorError as e:
        raise ConfigError(f"{where}, {_position(e)}: {e.problem}.") from None
    except yaml.YAMLError as e:
        raise ConfigError(f"{where} is not valid YAML: {_in_one_line(e)}") from None
    except ValueError as e:  # a date that is none
        raise ConfigError(f"{where} has a value that is none: {e}.") from None
    finally:
        if loader is not None:
            loader.dispose()


def _position(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return f"line {mark.line + 1}" if mark is not None else "unknown line"


def _in_one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return f"{_position(error)}: {', '.join(filter(None, (error.context, error.problem)))}."
    return " ".join(str(error).split())


class _BoundedLoader(yaml.SafeLoader):
    """Stops at the first node that is too deep, too long, one too many, or has a foreign tag."""

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self._where = where
        self._count = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        """The next node, checked."""
        self._count += 1
        self._depth += 1
        if self._count > MAX_NODES or self._depth > MAX_DEPTH:
            raise _too_large(self._where)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
        elif node is not None:
            self._check_tag(node, _TAG + ("seq" if isinstance(node, yaml.SequenceNode) else "map"))
        return node

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        limit, kind = MAX_TEXT, "characters"
        if node.tag in _NUMBERS:
            limit, kind = MAX_DIGITS, "digits"
        if len(node.value) > limit:
            raise ConfigError(
                f"{self._where}, line {node.start_mark.line + 1}: expected at most {limit} {kind}, "
                f"got {len(node.value)}: {node.value[:20]}..."
            )
        if "\0" in node.value:  # no path, name or text of a config has one
            raise ConfigError(
                f"{self._where}, line {node.start_mark.line + 1}: {node.value[:80]!r} holds a null"
                " character."
            )
        # of a text in quotes, and of a plain word: what it is without a tag
        usual = self.resolve(yaml.ScalarNode, node.value, (node.style is None, True))
        if node.tag != _TAG + "str":
            self._check_tag(node, usual)

    def _check_tag(self, node: yaml.Node, usual: str) -> None:
        if node.tag != usual:
            raise ConfigError(
                f"{self._where}, line {node.start_mark.line + 1}: expected plain data, got the tag "
                f"{node.tag}, which would run code or build an object. Such files are never "
                "loaded; write the value itself."
            )


def _check_expansion(root: yaml.Node, where: str) -> None:
    """Count the values that a document stands for when all its aliases are expanded.

    Raises:
        ConfigError: They are too many or too deep, or a node holds itself.
    """
    sizes: dict[int, tuple[int, int]] = {}  # by the id of a node: values, levels
    inside: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            return 1, 1
        key = id(node)
        if key in inside:
            raise ConfigError(
                f"{where}, line {node.start_mark.line + 1}: this value holds itself by an alias."
            )
        if key not in sizes:
            inside.add(key)
            values, levels = 1, 0
            for child in _children(node):
                more, deep = measure(child)
                values, levels = values + more, max(levels, deep)
            inside.discard(key)
            sizes[key] = values, levels + 1
            if values > MAX_NODES or levels >= MAX_DEPTH:
                raise _too_large(where)
        return sizes[key]

    measure(root)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    for entry in node.value:
        if isinstance(entry, tuple):
            yield from entry
        else:
            yield entry


def _too_large(where: str) -> ConfigError:
    return ConfigError(
        f"{where}: expected at most {MAX_NODES} values, {MAX_DEPTH} levels deep (aliases and merge "
        "keys expanded), got more."
    )
