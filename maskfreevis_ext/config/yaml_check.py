"""Safety of YAML config files: plain data only, and a finite chain of ``_BASE_`` files.

Detectron2's ``merge_from_file`` runs Python tags by default, so every file of a chain is checked
here first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import yaml

from maskfreevis_ext.errors import ConfigError

MAX_BYTES = 1 << 20  #: Largest config file.
MAX_DEPTH = 32  #: Longest chain of ``_BASE_`` files, and deepest nesting inside a file.
MAX_NODES = 20_000  #: Most values of a file after its aliases are expanded.


def check_yaml_file(path: str) -> list[str]:
    """Make sure that a config file and all its ``_BASE_`` files hold plain data.

    Args:
        path: A YAML file.

    Returns:
        The real paths of the files, the given one first.

    Raises:
        ConfigError: A file is missing, too large, not YAML, not a mapping, holds a Python tag, or
            names itself (directly or not) as its base.
    """
    seen: list[str] = []
    _check_chain(path, (), seen)
    return seen


def _check_chain(path: str, chain: tuple[str, ...], seen: list[str]) -> None:
    real = os.path.realpath(path)
    if real in chain:
        files = " -> ".join([*chain[chain.index(real) :], real])
        raise ConfigError(
            f"_BASE_ of {chain[-1]} leads in a circle: {files}. Remove one of these lines."
        )
    if len(chain) >= MAX_DEPTH:
        raise ConfigError(
            f"{chain[0]}: expected at most {MAX_DEPTH} _BASE_ files in a row, got more."
        )
    content = _read(path, chain)
    seen.append(real)
    for base in _bases(content, path):
        _check_chain(base, (*chain, real), seen)


def _read(path: str, chain: tuple[str, ...]) -> dict:
    where = f" (_BASE_ of {chain[-1]})" if chain else ""
    if not os.path.isfile(path):
        raise ConfigError(f"Config file {path}{where} does not exist (looked from {os.getcwd()}).")
    size = os.path.getsize(path)
    if size > MAX_BYTES:
        raise ConfigError(
            f"Config file {path}{where}: expected at most {MAX_BYTES} bytes, got {size}."
        )
    try:
        with open(path, encoding="utf-8") as f:
            content = yaml.safe_load(f)
    except yaml.constructor.ConstructorError as e:
        raise ConfigError(
            f"Config file {path}{where}, {_position(e)}: expected plain data, got a tag that would "
            f"run code or build an object ({e.problem}). Such files are never loaded; write the "
            "value itself."
        ) from None
    except yaml.YAMLError as e:
        raise ConfigError(f"Config file {path}{where} is not valid YAML: {e}") from None
    except UnicodeDecodeError as e:
        raise ConfigError(f"Config file {path}{where} is not UTF-8 text: {e}") from None
    except RecursionError:
        raise ConfigError(f"Config file {path}{where} is nested too deeply.") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"Config file {path}{where}: expected keys and values, got {type(content).__name__}."
        )
    _limit_size(content, path)
    return content


def _position(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return f"line {mark.line + 1}" if mark is not None else "unknown line"


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


def _limit_size(content: object, path: str) -> None:
    """Aliases make a small file a huge config; count what they expand to, and stop early."""
    count = 0
    stack: list[tuple[object, int]] = [(content, 0)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise ConfigError(
                f"Config file {path}: expected at most {MAX_NODES} values, {MAX_DEPTH} levels "
                "deep, got more."
            )
        if isinstance(node, dict):
            stack.extend((value, depth + 1) for value in node.values())
        elif isinstance(node, list):
            stack.extend((value, depth + 1) for value in node)
