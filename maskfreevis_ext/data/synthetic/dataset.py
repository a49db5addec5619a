"""Writes a small generated data set in YouTube-VIS form, for tests and a first training run.

One seed determines all files; video ``i`` of a split does not depend on the number of videos. Masks
cover the visible part of an object, boxes are tight around it, and the training split has boxes
only.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from PIL import Image

from maskfreevis_ext.data.boxes import tight_box
from maskfreevis_ext.data.synthetic.config import CLASS_NAMES, SyntheticConfig
from maskfreevis_ext.data.synthetic.levels import LEVELS, random_scene
from maskfreevis_ext.data.synthetic.photographs import photographs
from maskfreevis_ext.data.synthetic.scene import render_scene
from maskfreevis_ext.files import check_outputs, mark_outputs, write_json
from maskfreevis_ext.rle import encode_masks

_SPLITS = ("train", "val")


def _track(masks: np.ndarray, with_masks: bool) -> dict:
    """The per-frame lists of one annotation, from masks (T, H, W)."""
    corners = [tight_box(mask) for mask in masks]
    boxes = [box and [box[0], box[1], box[2] - box[0], box[3] - box[1]] for box in corners]
    fields: dict = {"bboxes": boxes}
    if with_masks:
        fields["segmentations"] = [
            None if box is None else rle
            for box, rle in zip(boxes, encode_masks(masks), strict=True)
        ]
        areas = [
            None if box is None else int(mask.sum()) for box, mask in zip(boxes, masks, strict=True)
        ]
    else:
        areas = [None if box is None else box[2] * box[3] for box in boxes]
    fields["areas"] = areas
    return fields


def _save_frames(frames: np.ndarray, folder: str, image_format: str) -> list[str]:
    os.makedirs(folder, exist_ok=True)
    names = []
    for t, frame in enumerate(frames):
        name = f"{t:05d}.{image_format}"
        path = os.path.join(folder, name)
        Path(path).unlink(missing_ok=True)  # a link to it keeps its content
        if image_format == "jpg":
            Image.fromarray(frame).save(path, quality=95, subsampling=0)
        else:
            Image.fromarray(frame).save(path)
        names.append(name)
    return names


def _write_json(path: str, content: dict) -> str:
    write_json(content, path)
    return path


def render_video(
    rng: np.random.Generator, config: SyntheticConfig
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Draw one random video.

    Args:
        rng: Source of all randomness.
        config: Level, sizes and counts; ``num_train`` and ``num_val`` are not used.

    Returns:
        Frames (T, H, W, 3) uint8 RGB, visible masks (N, T, H, W) bool and the class index of each
        object, as ``render_scene`` gives them; N may be 0.

    Raises:
        DataError: The level needs the photographs of scikit-image, and they are not there.
    """
    scene = random_scene(rng, config)
    return render_scene(rng, scene, config.num_frames, config.height, config.width)


def make_synthetic(
    output: str, config: SyntheticConfig | None = None, overwrite: bool = False
) -> dict[str, str]:
    """Write the data set.

    ``<output>/{train,val}/JPEGImages/<video>/<frame>`` and the annotation files beside the two
    folders: ``train.json`` (boxes only), ``val.json`` (boxes and masks), and
    ``instances_train_masks.json`` and ``instances_train_mixed.json`` where the config asks for
    them.

    Args:
        output: Folder, made where it is absent.
        config: Sizes and counts; None: the defaults.
        overwrite: Whether files that this function did not make may be replaced.

    Returns:
        Paths: of the JSON files by "train", "val" and, where they were written, "train_masks" and
        "train_mixed"; of the image roots by "train_images" and "val_images".

    Raises:
        DataError: The level needs the photographs of scikit-image, and they are not there; or the
            folder holds files of other origin, or cannot be written.
        OSError: A file cannot be written.
    """
    config = config or SyntheticConfig()
    names = ["train.json", "val.json"]
    names += ["instances_train_masks.json"] if config.train_masks else []
    names += ["instances_train_mixed.json"] if config.mask_fraction > 0 else []
    files = [os.path.join(output, name) for name in names]
    roots = [os.path.join(output, split, "JPEGImages") for split in _SPLITS]
    check_outputs(files, folders=roots, overwrite=overwrite)
    if LEVELS[config.level].uses_photographs:
        photographs()  # fails before anything is written
    os.makedirs(output, exist_ok=True)
    paths: dict[str, str] = {}
    for split_index, split in enumerate(_SPLITS):
        count = config.num_train if split == "train" else config.num_val
        image_root = os.path.join(output, split, "JPEGImages")
        os.makedirs(image_root, exist_ok=True)
        paths[f"{split}_images"] = image_root
        wants_masks = split == "val" or config.train_masks or config.mask_fraction > 0
        content, with_masks = _make_split(config, split_index, count, image_root, wants_masks)
        if split == "val":
            content = with_masks
        if split == "train" and config.train_masks:
            path = os.path.join(output, "instances_train_masks.json")
            paths["train_masks"] = _write_json(path, with_masks)
        if split == "train" and config.mask_fraction > 0:
            path = os.path.join(output, "instances_train_mixed.json")
            mixed = _mix(content, with_masks, config.mask_fraction)
            paths["train_mixed"] = _write_json(path, mixed)
        paths[split] = _write_json(os.path.join(output, f"{split}.json"), content)
    mark_outputs([*files, *(entry.path for root in roots for entry in os.scandir(root))])
    return paths


def _mix(plain: dict, masked: dict, fraction: float) -> dict:
    """A split in which ``fraction`` of the videos, evenly spread, has masks."""
    chosen = {
        video["id"]
        for i, video in enumerate(plain["videos"])
        if math.floor((i + 1) * fraction + 1e-9) > math.floor(i * fraction + 1e-9)
    }
    annotations = [
        with_masks if with_masks["video_id"] in chosen else without
        for without, with_masks in zip(plain["annotations"], masked["annotations"], strict=True)
    ]
    return {**plain, "annotations": annotations}


def _make_split(
    config: SyntheticConfig, split_index: int, count: int, image_root: str, wants_masks: bool
) -> tuple[dict, dict]:
    """Write the frames of a split; returns its JSON content without masks and with masks."""
    videos: list[dict] = []
    plain: list[dict] = []
    masked: list[dict] = []
    for index in range(count):
        rng = np.random.default_rng([config.seed, split_index, index])
        frames, masks, classes = render_video(rng, config)
        name = f"video_{index:04d}"
        files = _save_frames(frames, os.path.join(image_root, name), config.image_format)
        video_id = index + 1
        videos.append(
            {
                "id": video_id,
                "height": config.height,
                "width": config.width,
                "length": config.num_frames,
                "file_names": [f"{name}/{file}" for file in files],
            }
        )
        for object_masks, class_index in zip(masks, classes, strict=True):
            head = {
                "id": len(plain) + 1,
                "video_id": video_id,
                "category_id": class_index + 1,
                "iscrowd": 0,
                "height": config.height,
                "width": config.width,
                "length": config.num_frames,
            }
            plain.append({**head, **_track(object_masks, with_masks=False)})
            masked.append({**head, **_track(object_masks, with_masks=wants_masks)})
    categories = [
        {"id": i + 1, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASS_NAMES)
    ]
    info = {"description": "synthetic shapes", "seed": config.seed}
    if config.level > 0:
        info["level"] = config.level
    shared = {"info": info, "licenses": [], "videos": videos, "categories": categories}
    return {**shared, "annotations": plain}, {**shared, "annotations": masked}
