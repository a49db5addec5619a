"""The classes of a data set: the category of each label of the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from detectron2.data import MetadataCatalog

from maskfreevis_ext.data.json_fields import list_of, read_json, unique_id
from maskfreevis_ext.errors import DataError

#: Most categories of a file.
MAX_CATEGORIES = 10_000


class Category(NamedTuple):
    """A category of an annotation file."""

    id: int
    name: str


def read_categories(json_file: str, content: Mapping[str, Any]) -> dict[int, str]:
    """Read the ``categories`` of a file in COCO's or YouTube-VIS form.

    Args:
        json_file: Path, for messages.
        content: The file's object.

    Returns:
        Names by category id, in the order of the ids.

    Raises:
        DataError: They are absent, or an id or name is not unique.
    """
    entries = list_of(json_file, content, "categories")
    if not 0 < len(entries) <= MAX_CATEGORIES:
        raise DataError(
            f"{json_file}: 'categories' must have 1..{MAX_CATEGORIES} entries, got {len(entries)}."
        )
    names: dict[int, str] = {}
    taken: set[str] = set()
    for entry in entries:
        category_id = unique_id(entry, names)
        name = entry.text("name")
        if name in taken:
            raise entry.fail("name", "unique", "Two categories cannot share a name.")
        taken.add(name)
        names[category_id] = name
    return dict(sorted(names.items()))


def categories_of_file(content: Mapping[str, Any]) -> dict[int, Category]:
    """Categories of an annotation file by label; labels number the ids in ascending order.

    Args:
        content: The JSON object.
    """
    entries = sorted(content.get("categories") or [], key=lambda entry: entry["id"])
    return {
        label: Category(entry["id"], entry.get("name", str(entry["id"])))
        for label, entry in enumerate(entries)
    }


def categories_by_label(
    dataset: str, content: Mapping[str, Any] | None = None
) -> dict[int, Category]:
    """Categories by label for a model that was trained on a data set.

    Args:
        dataset: A registered name. Its metadata are used first, then its annotation file.
        content: The content of the annotation file, if it has been read already.

    Returns:
        Categories by label; empty if neither metadata nor file have them.

    Raises:
        DataError: The annotation file cannot be read.
    """
    metadata = MetadataCatalog.get(dataset)
    to_label = metadata.get("thing_dataset_id_to_contiguous_id")
    names = metadata.get("thing_classes")
    if to_label and (names or content is not None):
        return {
            label: Category(category_id, names[label] if names else str(category_id))
            for category_id, label in sorted(to_label.items(), key=lambda pair: pair[1])
        }
    # The metadata of a user's data set are set when it is loaded, which may not have happened yet.
    path = metadata.get("json_file")
    if content is None and path and os.path.isfile(path):
        content = read_json(path)
    return categories_of_file(content or {})
