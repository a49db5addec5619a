"""The classes of several data sets as classes of one: by name, or by a mapping file."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskfreevis_ext.data.class_lists import CLASS_LISTS
from maskfreevis_ext.data.json_fields import read_json, short
from maskfreevis_ext.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_SHIPPED = Path(__file__).with_name("class_maps")


def plain_name(name: str) -> str:
    """A class name without case, spaces and punctuation, for comparisons."""
    return re.sub(r"[\W_]", "", name.casefold())


def known_list(names: Sequence[str]) -> str | None:
    """Which of the public class lists these names are, such as "coco", or None.

    Args:
        names: Class names in any order.
    """
    wanted = {plain_name(name) for name in names}
    for known, classes in CLASS_LISTS.items():
        if wanted == {plain_name(name) for name in classes}:
            return known
    return None


def shipped_map(source: Sequence[str], target: Sequence[str]) -> str | None:
    """The mapping file of this package between two public class lists, or None.

    Args:
        source: Class names of a data set.
        target: Class names of the model.
    """
    path = _SHIPPED / f"{known_list(source)}_to_{known_list(target)}.json"
    return str(path) if path.is_file() else None


def read_class_map(
    path: str, source: Sequence[str], target: Sequence[str]
) -> dict[str, str | None]:
    """Read a mapping file: a JSON object, name in the data set -> name in the model, or null.

    Args:
        path: The file.
        source: Class names of the data set.
        target: Class names of the model.

    Returns:
        The pairs with the names as ``source`` and ``target`` spell them.

    Raises:
        DataError: The file is no such object, or has a name that is in neither list.
    """
    of_source = {plain_name(name): name for name in source}
    of_target = {plain_name(name): name for name in target}
    pairs: dict[str, str | None] = {}
    for name, other in read_json(path).items():
        if plain_name(name) not in of_source:
            raise DataError(
                f"{path}: {name!r} must be a class of the data set, one of {short(list(source))}."
            )
        if other is not None and not isinstance(other, str):
            raise DataError(f"{path}: {name!r} must be the name of a class or null, got {other!r}.")
        if other is not None and plain_name(other) not in of_target:
            raise DataError(
                f"{path}: {name!r} is mapped to {other!r}, which must be one of the classes that"
                f" are trained, {short(list(target))}, or null."
            )
        pairs[of_source[plain_name(name)]] = None if other is None else of_target[plain_name(other)]
    return pairs


def class_table(
    source: Sequence[str], target: Sequence[str], map_file: str | None = None
) -> dict[int, int]:
    """Class of the model for each class of a data set that has one.

    A mapping file goes before equal names (``plain_name``); without ``map_file``, the shipped one
    between two public class lists is used.

    Args:
        source: Class names of the data set.
        target: Class names of the model.
        map_file: Path of a mapping file.

    Returns:
        Class in ``target`` by class in ``source``.

    Raises:
        DataError: The mapping file cannot be used.
    """
    path = map_file or shipped_map(source, target)
    pairs = read_class_map(path, source, target) if path else {}
    of_name = {plain_name(name): i for i, name in enumerate(target)}
    table = {}
    for i, name in enumerate(source):
        other = pairs.get(name, name)
        if other is not None and plain_name(other) in of_name:
            table[i] = of_name[plain_name(other)]
    return table


def map_classes(
    dataset_dicts: Sequence[Mapping[str, Any]], table: Mapping[int, int], names: Sequence[str]
) -> Counter[str]:
    """Give all objects the classes of the model, in place; objects without one are removed.

    Args:
        dataset_dicts: Of the data set.
        table: See ``class_table``.
        names: Class names of the data set.

    Returns:
        Number of removed boxes by class.
    """
    dropped: Counter[str] = Counter()
    for entry in dataset_dicts:
        for objects in entry["annotations"]:
            kept = []
            for item in objects:
                if item["category_id"] in table:
                    item["category_id"] = table[item["category_id"]]
                    kept.append(item)
                else:
                    dropped[names[item["category_id"]]] += 1
            objects[:] = kept
    return dropped


def adapt_classes(
    name: str,
    dataset_dicts: Sequence[dict[str, Any]],
    source: Sequence[str],
    target_name: str,
    target: Sequence[str],
    map_file: str | None = None,
) -> None:
    """Give a data set the classes of another one, in place, with one line of the log.

    Args:
        name: Of the data set.
        dataset_dicts: Of the data set.
        source: Its class names.
        target_name: Name of the data set whose classes the model predicts.
        target: Its class names.
        map_file: Path of a mapping file, or None.

    Raises:
        ConfigError: No class has a counterpart.
        DataError: The mapping file cannot be used.
    """
    if list(source) == list(target) and map_file is None:
        return
    table = class_table(source, target, map_file)
    if not table:
        raise ConfigError(
            f"DATASETS.TRAIN: no class of {name!r} ({short(list(source))}) is a class of"
            f" {target_name!r} ({short(list(target))}), the last of DATASETS.TRAIN, whose classes"
            " are trained. Name a mapping file in DATASETS.CLASS_MAPS, or remove the data set."
        )
    dropped = map_classes(dataset_dicts, table, source)
    most = ", ".join(f"{label} {count}" for label, count in dropped.most_common(5))
    logger.info(
        "%s: %d of %d classes are classes of %s; %d boxes of other classes dropped%s.",
        name,
        len(table),
        len(source),
        target_name,
        sum(dropped.values()),
        f" ({most}{', ...' if len(dropped) > 5 else ''})" if dropped else "",
    )
