"""The classes of a data set: which category a model's label stands for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from detectron2.data import MetadataCatalog

from maskfreevis_ext.data.ytvis import read_json


class Category(NamedTuple):
    """A category of an annotation file."""

    id: int
    name: str


def categories_of_file(content: Mapping[str, Any]) -> dict[int, Category]:
    """Category of each label of an annotation file: labels count the ids in ascending order.

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
    """Category of each label that a model trained on a data set predicts.

    Args:
        dataset: A registered name. Its metadata are asked first, then its annotation file.
        content: That of the annotation file, where it has been read already.

    Returns:
        Categories by label; none where neither metadata nor file say them.

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
    # The metadata of one's own data set are filled when it is loaded, which may be still to come.
    path = metadata.get("json_file")
    if content is None and path and os.path.isfile(path):
        content = read_json(path)
    return categories_of_file(content or {})
