"""Registers the public data sets under ``DETECTRON2_DATASETS``, and the data sets of a config.

Importing this module registers ``ytvis_2019_*``, ``ytvis_2021_*``, ``ytvis_2022_*`` and ``ovis_*``
(train, val, test), ``bdd100k_mots_train`` and ``_val``, and the images of COCO, whose training
clips are made from one image each: ``coco_2017_train``, ``coco_2017_val`` and
``coco_2017_train_fake``, the name that MaskFreeVIS gives to the first. The files need not be there
until a data set is used.
"""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskfreevis_ext.data.class_lists import (
    BDD100K_CLASSES,
    COCO_CLASSES,
    COCO_IDS,
    OVIS_CLASSES,
    YTVIS_2019_CLASSES,
    YTVIS_2021_CLASSES,
)
from maskfreevis_ext.data.registration import register_ytvis_instances
from maskfreevis_ext.errors import ConfigError

#: What a data set may be supervised by: INPUT.SUPERVISION.
SUPERVISIONS = ("box", "mask", "teacher", "data")

_SPLITS = (("train", "train"), ("val", "valid"), ("test", "test"))
_YTVIS = {
    f"ytvis_{year}_{split}": (
        f"ytvis_{year}/{folder}/JPEGImages",
        f"ytvis_{year}/{folder}.json",
        YTVIS_2019_CLASSES if year == 2019 else YTVIS_2021_CLASSES,
    )
    for year in (2019, 2021, 2022)
    for split, folder in _SPLITS
}
_OVIS = {
    f"ovis_{split}": (f"ovis/{folder}", f"ovis/annotations/{folder}.json", OVIS_CLASSES)
    for split, folder in _SPLITS
}
_BDD100K = {
    f"bdd100k_mots_{split}": (
        f"bdd100k/images/seg_track_20/{split}",
        f"bdd100k/labels/seg_track_20/{split}.json",
        BDD100K_CLASSES,
    )
    for split in ("train", "val")
}
_COCO = {
    f"coco_2017_{split}": (
        f"coco/{split}2017",
        f"coco/annotations/instances_{split}2017.json",
        COCO_CLASSES,
    )
    for split in ("train", "val")
}
#: Name -> (image root, annotation file, classes); the paths are relative to DETECTRON2_DATASETS.
BUILTIN_DATASETS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    **_YTVIS,
    **_OVIS,
    **_BDD100K,
    **_COCO,
}
#: COCO's training images under the name of MaskFreeVIS, whose annotation file nobody ships: it is
#: COCO's without the objects of other classes, which are dropped here anyway.
_FAKE = "coco_2017_train_fake"
_FAKE_JSON = "coco/annotations/coco2ytvis2019_train.json"


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """Fixed RGB colours 0..255 of ``count`` classes; successive ones have different hues."""
    colors = []
    for i in range(count):
        hue = (0.6180339887 * i) % 1.0
        red, green, blue = colorsys.hsv_to_rgb(hue, (0.9, 0.6, 0.75)[i % 3], (0.95, 0.8)[i % 2])
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colors


def _metadata(names: tuple[str, ...]) -> dict[str, Any]:
    ids: Sequence[int] = COCO_IDS if names is COCO_CLASSES else range(1, len(names) + 1)
    return {
        "thing_classes": list(names),
        "thing_dataset_id_to_contiguous_id": {category_id: i for i, category_id in enumerate(ids)},
        "thing_colors": class_colors(len(names)),
    }


def register_all(root: str | None = None) -> None:
    """Register the public data sets; a second call with the same folder does nothing.

    Args:
        root: Folder of all data sets; None: that of the environment variable DETECTRON2_DATASETS,
            or "datasets" if it is not set.

    Raises:
        ConfigError: A name is registered with other files already.
    """
    if root is None:
        root = os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
    known = set(DatasetCatalog.list())
    for name, (images, json_file, names) in BUILTIN_DATASETS.items():
        if name in known and not MetadataCatalog.get(name).get("has_videos"):
            continue  # COCO is one of Detectron2's own data sets
        register_ytvis_instances(
            name, _metadata(names), os.path.join(root, json_file), os.path.join(root, images)
        )
    images, json_file, names = BUILTIN_DATASETS["coco_2017_train"]
    if os.path.isfile(os.path.join(root, _FAKE_JSON)):
        json_file = _FAKE_JSON
    register_ytvis_instances(
        _FAKE, _metadata(names), os.path.join(root, json_file), os.path.join(root, images)
    )


def register_from_config(cfg: CfgNode) -> None:
    """Register the data sets of ``INPUT.DATASETS``, which need no Python code.

    Args:
        cfg: A config; its ``INPUT.DATASETS`` is a list of [name, annotation file, image root], with
            a supervision behind them or not.

    Raises:
        ConfigError: An entry has another form, or its name is registered with other files already.
    """
    for i, entry in enumerate(cfg.INPUT.DATASETS):
        is_list = isinstance(entry, (list, tuple)) and len(entry) in (3, 4)
        is_good = is_list and all(isinstance(text, str) and text for text in entry)
        if not is_good or (len(entry) == 4 and entry[3] not in SUPERVISIONS):
            raise ConfigError(
                f"INPUT.DATASETS[{i}] must be [name, annotation file, image root], with one of"
                f" {', '.join(SUPERVISIONS)} behind them for another supervision than that of"
                f" INPUT.SUPERVISION, got {entry!r}."
                " For example INPUT.DATASETS \"[['my_train', 'my/train.json', 'my/images']]\"."
            )
        name, json_file, image_root, *supervision = entry
        register_ytvis_instances(
            name,
            {"supervision": supervision[0]} if supervision else {},
            os.path.expanduser(json_file),
            os.path.expanduser(image_root),
        )


register_all()
