"""Registers annotation files under names; their content says whether they hold videos or images."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from maskfreevis_ext.data.coco_images import images_of_content
from maskfreevis_ext.data.format_hints import convert_command, is_image_file
from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.data.ytvis import DatasetDict, videos_of_content
from maskfreevis_ext.errors import ConfigError, DataError


def load_annotations(
    json_file: str, image_root: str, dataset_name: str | None = None
) -> list[DatasetDict]:
    """Read a file in YouTube-VIS form, or a COCO file of images, which its content tells apart.

    Args:
        json_file: Path of the file.
        image_root: Folder that its ``file_names`` or ``file_name`` are relative to.
        dataset_name: Registered name whose metadata are filled.

    Returns:
        Dataset dicts, as of ``load_ytvis_json`` or ``images_of_content``.

    Raises:
        DataError: The file, an entry or a field cannot be used.
    """
    content = read_json(json_file)
    read = images_of_content if is_image_file(content) else videos_of_content
    return read(json_file, content, image_root, dataset_name)


def load_registered(name: str, key: str) -> list[DatasetDict]:
    """Read a registered data set.

    Args:
        name: One that ``register_ytvis_instances`` knows, or one of Detectron2 whose metadata name
            an annotation file and an image root.
        key: Config key that holds the name, for messages.

    Returns:
        Dataset dicts.

    Raises:
        ConfigError: The data set has no annotation file.
        DataError: The file cannot be used.
    """
    metadata = MetadataCatalog.get(name)
    if metadata.get("has_videos"):
        return DatasetCatalog.get(name)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if not json_file or image_root is None:
        raise ConfigError(
            f"{key}: the data set {name!r} has no annotation file in YouTube-VIS or COCO form."
            " Remove it, or register such a file by INPUT.DATASETS."
        )
    return load_annotations(json_file, image_root, name)


def register_ytvis_instances(
    name: str, metadata: Mapping[str, Any], json_file: str, image_root: str
) -> None:
    """Register a data set in YouTube-VIS form, or images in COCO form, under a name.

    Example: ``register_ytvis_instances("my_train", {}, "my/train.json", "my/images")``. The class
    names are read from the file. Registering the same name with the same paths again does nothing.

    Args:
        name: Name by which ``DATASETS.TRAIN`` and ``DATASETS.TEST`` refer to it.
        metadata: Further metadata, or an empty mapping; ``evaluator_type`` chooses another
            evaluator than "ytvis", ``supervision`` ("box", "mask", "teacher" or "data") another
            supervision than INPUT.SUPERVISION or INPUT.PSEUDO.SUPERVISION.
        json_file: Path of the annotation file; read only when the data set is used.
        image_root: Folder that the file's ``file_names`` are relative to.

    Raises:
        ConfigError: The name is empty, or registered with other files or another supervision.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"A data set's name must be a string that is not empty, got {name!r}.")
    json_file, image_root = os.fspath(json_file), os.fspath(image_root)
    known = MetadataCatalog.get(name)
    if name in DatasetCatalog.list():
        taken = (known.get("json_file"), known.get("image_root"))
        if taken != (json_file, image_root):
            raise ConfigError(
                f"The data set name {name!r} is taken by {taken[0]} with images in {taken[1]}; got"
                f" {json_file} with images in {image_root}. Choose another name."
            )
        if "supervision" in metadata and known.get("supervision") != metadata["supervision"]:
            raise ConfigError(
                f"The data set {name!r} is registered with the supervision"
                f" {known.get('supervision')!r}, got {metadata['supervision']!r}. Choose another"
                " name."
            )
        return
    DatasetCatalog.register(name, functools.partial(load_annotations, json_file, image_root, name))
    known.set(json_file=json_file, image_root=image_root, has_videos=True)
    known.set(**{"evaluator_type": "ytvis", **metadata})


def refuse_images(name: str, dataset_dicts: list[DatasetDict], key: str) -> None:
    """Refuse a data set of images where videos are needed.

    Args:
        name: Of the data set.
        dataset_dicts: Of the data set.
        key: Config key or option that holds the name, for messages.

    Raises:
        DataError: It holds images.
    """
    if any(entry.get("is_image") for entry in dataset_dicts):
        path = MetadataCatalog.get(name).get("json_file")
        raise DataError(
            f"{key}: {path} ({name!r}) is a COCO file of images, and videos are needed here."
            f" Convert it: {convert_command('coco', str(path))}"
        )
