"""Names of a model's classes: they travel in checkpoints, and stay with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: Entry of a checkpoint, and key in the metadata of a ``.safetensors`` file.
CLASS_NAMES = "class_names"
_MOST = 10_000


def check_class_names(value: object) -> list[str] | None:
    """The class names of a checkpoint, if they are such.

    Args:
        value: Anything.

    Returns:
        1..10,000 printable names, none of them twice; None for everything else.
    """
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= _MOST:
        return None
    names = [name for name in value if isinstance(name, str) and name and name.isprintable()]
    return names if len(set(names)) == len(value) else None


def set_class_names(model: Any, names: Sequence[str] | None) -> None:
    """Note the names of the classes that a model predicts.

    Args:
        model: A module, without a wrapper for several processes.
        names: One for each class, in the order of the labels; None: unknown.
    """
    model.class_names = None if names is None else tuple(names)


def class_names_of(model: Any) -> list[str] | None:
    """The names of the classes that a model predicts.

    Args:
        model: A module, without a wrapper for several processes.

    Returns:
        One for each class, in the order of the labels; None where they are unknown.
    """
    names = getattr(model, "class_names", None)
    return None if names is None else list(names)
