"""One row per config key: name, default, check, comment; and the registry of all rows.

The rows of the project stand in ``maskfreevis_ext.config.rows``. A row is the only place that names
the default, the allowed values and the meaning of a key: ``add_maskfreevis_config`` (defaults), the
validator (checks) and docs/config.md (all of it) are made from it. An extension adds rows of its
own by ``register_keys``.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from detectron2.config import CfgNode

from maskfreevis_ext.config.checks import ANYTHING, Check
from maskfreevis_ext.errors import ConfigError

logger = logging.getLogger(__name__)


class _FromDetectron2:
    """The type of ``FROM_DETECTRON2``."""

    def __repr__(self) -> str:
        return "Detectron2's"


#: Default of a key that Detectron2 defines; here only its value is checked.
FROM_DETECTRON2: Final = _FromDetectron2()


@dataclass(frozen=True)
class Key:
    """A config key.

    Attributes:
        name: Dotted name in upper case, such as "MODEL.MASKFREE.TEMPORAL.TOP_K".
        default: Its value unless a file or the command line sets it. ``FROM_DETECTRON2``: the key
            belongs to Detectron2, which sets it.
        check: Check of the value.
        comment: The meaning in plain words, as Markdown.
        unread: Why nothing reads the key; empty for a key that is read. Unread keys exist so that
            config files of other projects load. Their values are not checked, and a warning is
            logged for a value other than the default.
    """

    name: str
    default: object
    check: Check
    comment: str
    unread: str = ""


def checked(name: str, check: Check, comment: str) -> Key:
    """Row of a key of Detectron2 whose allowed values are other or fewer here."""
    return Key(name, FROM_DETECTRON2, check, comment)


def unread(name: str, default: object, reason: str) -> Key:
    """Row of a key that config files of the reference set and that nothing reads here."""
    return Key(name, default, ANYTHING, "", unread=reason)


_REGISTRY: dict[str, Key] = {}


def register_keys(keys: Iterable[Key]) -> None:
    """Add rows to the defaults, the validation and the reference page of all later configs.

    Call it when the module that reads the keys is imported, before ``load_config`` or
    ``add_maskfreevis_config``. Adding an identical row again does nothing.

    Args:
        keys: The rows.

    Raises:
        ConfigError: A name is not a dotted name in upper case, is used by another row (as a key or
            as a section), or a default fails its own check.
    """
    for key in keys:
        if _REGISTRY.get(key.name) == key:
            continue
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)*", key.name):
            raise ConfigError(
                "register_keys: expected a dotted name in upper case, such as "
                f"MODEL.MY_LOSS.WEIGHT, got {key.name!r}."
            )
        parts = key.name.split(".")
        upwards = {".".join(parts[: i + 1]) for i in range(len(parts))}
        taken = [n for n in _REGISTRY if n in upwards or n.startswith(f"{key.name}.")]
        if taken:
            raise ConfigError(
                f"register_keys: {key.name} is taken by the row of {taken[0]}. Choose another name."
            )
        if key.default is not FROM_DETECTRON2 and not key.check.test(key.default):
            raise ConfigError(
                f"register_keys: {key.name}: expected {key.check.expected}, got the default "
                f"{key.default!r}."
            )
        _REGISTRY[key.name] = key


def registered_keys() -> tuple[Key, ...]:
    """All rows, in the order of their registration."""
    return tuple(_REGISTRY.values())


def add_maskfreevis_config(cfg: CfgNode) -> None:
    """Add every registered key with its default to Detectron2's config, in place.

    These are the keys of the reference (DeepLab, Mask2Former, video Mask2Former, MaskFreeVIS) under
    their own names, so that YAML files written for it load unchanged, and those of this project.

    Args:
        cfg: What ``detectron2.config.get_cfg()`` returns.
    """
    for key in registered_keys():
        if key.default is FROM_DETECTRON2:
            continue
        *sections, name = key.name.split(".")
        node = cfg
        for section in sections:
            if section not in node:
                setattr(node, section, CfgNode())
            node = node[section]
        setattr(node, name, copy.deepcopy(key.default))


def lookup(cfg: CfgNode, name: str) -> object:
    """The value of a dotted key.

    Raises:
        ConfigError: The config has no such key.
    """
    node: object = cfg
    for part in name.split("."):
        if not isinstance(node, CfgNode) or part not in node:
            raise ConfigError(
                f"{name}: the config has no such key. Make it by default_config or load_config, "
                "after the module that registers the key has been imported."
            )
        node = node[part]
    return node


def report_unread_keys(cfg: CfgNode, defaults: CfgNode) -> list[str]:
    """Log a warning for each unread key that was set to another value than its default.

    Keys with the same reason share a line of the log.

    Args:
        cfg: The config in use.
        defaults: A config with the defaults, of ``default_config``.

    Returns:
        The names of these keys.

    Raises:
        ConfigError: A config lacks a registered key.
    """
    by_reason: dict[str, list[str]] = {}
    for key in registered_keys():
        if key.unread and lookup(cfg, key.name) != lookup(defaults, key.name):
            by_reason.setdefault(key.unread, []).append(key.name)
    for reason, names in by_reason.items():
        subject = f"key {names[0]} does" if len(names) == 1 else f"keys {', '.join(names)} do"
        logger.warning("Config %s nothing: %s.", subject, reason)
    return [name for names in by_reason.values() for name in names]
