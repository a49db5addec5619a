"""Which weights of a file a model took: the report after loading."""

from __future__ import annotations

from typing import Any


def describe_incompatible(incompatible: Any, num_keys: int, limit: int = 30) -> str:
    """Describe which weights of a file were loaded into a model and which were not.

    Args:
        incompatible: fvcore's result with ``missing_keys``, ``unexpected_keys`` and
            ``incorrect_shapes``.
        num_keys: Number of keys of the model.
        limit: Most groups of names in a line; the others are counted.

    Returns:
        One line if all weights fit; otherwise one more line for each kind of difference, and for
        each weight of another size.
    """
    shapes = incompatible.incorrect_shapes
    other_size = {key for key, _, _ in shapes}
    missing = [key for key in incompatible.missing_keys if key not in other_size]
    unexpected = list(incompatible.unexpected_keys)
    lines = [f"Loaded {num_keys - len(missing) - len(shapes)} of the model's {num_keys} weights."]
    lines += [
        f"  skipped {key}: size {tuple(in_file)} in the file, {tuple(in_model)} in the model"
        for key, in_file, in_model in shapes
    ]
    if missing:
        lines.append(f"  not in the file, keep their initial values: {group_names(missing, limit)}")
    if unexpected:
        lines.append(f"  in the file, not used by the model: {group_names(unexpected, limit)}")
    return "\n".join(lines)


def group_names(keys: list[str], limit: int = 30) -> str:
    """Names of weights, grouped by their common prefix: ``a.{b, c}``.

    Args:
        keys: The names.
        limit: Most groups that are named; the others are counted.
    """
    groups: dict[str, list[str]] = {}
    for key in sorted(keys):
        head, _, tail = key.rpartition(".")
        groups.setdefault(head, []).append(tail)
    texts = []
    for head, tails in groups.items():
        inside = tails[0] if len(tails) == 1 else "{" + ", ".join(tails) + "}"
        texts.append(f"{head}.{inside}" if head else inside)
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more groups"
