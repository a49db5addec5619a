"""Registers the public data sets under ``DETECTRON2_DATASETS``, and the data sets of a config.

Importing this module registers ``ytvis_2019_*``, ``ytvis_2021_*`` and ``ovis_*`` (train, val,
test). The files need not be there until a data set is used.
"""

from __future__ import annotations

import colorsys
import os
from typing import Any

from detectron2.config import CfgNode

from maskfreevis_ext.data.ytvis import register_ytvis_instances
from maskfreevis_ext.errors import ConfigError

#: Class names in the order of the category ids 1..40.
YTVIS_2019_CLASSES: tuple[str, ...] = tuple(
    "person giant_panda lizard parrot skateboard sedan ape dog snake monkey hand rabbit duck cat"
    " cow fish train horse turtle bear motorbike giraffe leopard fox deer owl surfboard airplane"
    " truck zebra tiger elephant snowboard boat"
    " shark mouse frog eagle earless_seal tennis_racket".split()
)
#: Class names in the order of the category ids 1..40.
YTVIS_2021_CLASSES: tuple[str, ...] = tuple(
    "airplane bear bird boat car cat cow deer dog duck earless_seal elephant fish flying_disc fox"
    " frog giant_panda giraffe horse leopard lizard monkey motorbike mouse parrot person rabbit"
    " shark skateboard snake snowboard squirrel"
    " surfboard tennis_racket tiger train truck turtle whale zebra".split()
)
#: Class names in the order of the category ids 1..25, spelt as in the official files.
OVIS_CLASSES: tuple[str, ...] = tuple(
    "Person Bird Cat Dog Horse Sheep Cow Elephant Bear Zebra Giraffe Poultry Giant_panda Lizard"
    " Parrot Monkey Rabbit"
    " Tiger Fish Turtle Bicycle Motorcycle Airplane Boat Vehical".split()
)

_SPLITS = (("train", "train"), ("val", "valid"), ("test", "test"))
_YTVIS = {
    f"ytvis_{year}_{split}": (
        f"ytvis_{year}/{folder}/JPEGImages",
        f"ytvis_{year}/{folder}.json",
        YTVIS_2019_CLASSES if year == 2019 else YTVIS_2021_CLASSES,
    )
    for year in (2019, 2021)
    for split, folder in _SPLITS
}
_OVIS = {
    f"ovis_{split}": (f"ovis/{folder}", f"ovis/annotations/{folder}.json", OVIS_CLASSES)
    for split, folder in _SPLITS
}
#: Name -> (image root, annotation file, classes); the paths are relative to DETECTRON2_DATASETS.
BUILTIN_DATASETS: dict[str, tuple[str, str, tuple[str, ...]]] = {**_YTVIS, **_OVIS}


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """Fixed RGB colours 0..255 of ``count`` classes; successive ones have different hues."""
    colors = []
    for i in range(count):
        hue = (0.6180339887 * i) % 1.0
        red, green, blue = colorsys.hsv_to_rgb(hue, (0.9, 0.6, 0.75)[i % 3], (0.95, 0.8)[i % 2])
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colors


def _metadata(names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "thing_classes": list(names),
        "thing_dataset_id_to_contiguous_id": {i + 1: i for i in range(len(names))},
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
    for name, (images, json_file, names) in BUILTIN_DATASETS.items():
        register_ytvis_instances(
            name, _metadata(names), os.path.join(root, json_file), os.path.join(root, images)
        )


def register_from_config(cfg: CfgNode) -> None:
    """Register the data sets of ``INPUT.DATASETS``, which need no Python code.

    Args:
        cfg: A config; its ``INPUT.DATASETS`` is a list of [name, annotation file, image root].

    Raises:
        ConfigError: An entry has another form, or its name is registered with other files already.
    """
    for i, entry in enumerate(cfg.INPUT.DATASETS):
        is_triple = isinstance(entry, (list, tuple)) and len(entry) == 3
        if not is_triple or not all(isinstance(text, str) and text for text in entry):
            raise ConfigError(
                f"INPUT.DATASETS[{i}] must be [name, annotation file, image root], got {entry!r}."
                " For example INPUT.DATASETS \"[['my_train', 'my/train.json', 'my/images']]\"."
            )
        name, json_file, image_root = entry
        register_ytvis_instances(
            name, {}, os.path.expanduser(json_file), os.path.expanduser(image_root)
        )


register_all()
