"""Small YouTube-VIS files with real frames, for tests of the data part."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from PIL import Image
from pycocotools import mask as mask_util

from tests.helpers.configs import base_cfg

HEIGHT, WIDTH = 20, 30
_counter = itertools.count()


def unique_name(prefix: str = "videos") -> str:
    """A data set name that no other test of this run has."""
    return f"{prefix}_{next(_counter)}"


def rectangle(x: int, y: int, w: int, h: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> dict:
    """Compressed RLE of a filled box, as a JSON holds it."""
    mask = np.zeros(size, dtype=np.uint8)
    mask[y : y + h, x : x + w] = 1
    rle = mask_util.encode(np.asfortranarray(mask))
    return {"size": list(size), "counts": rle["counts"].decode("ascii")}


def plain_content(lengths: tuple[int, ...] = (4, 3), *, masks: bool = False) -> dict[str, Any]:
    """Videos 1, 2, ... of some lengths; video v has the tracks 10 v (all frames) and 10 v + 1.

    The boxes of track 10 v are [2 + t, 3, 8, 6] in frame t; track 10 v + 1 is absent from frame 0
    and has the boxes [15, 5 + t, 10, 7].
    """
    videos, annotations = [], []
    for v, length in enumerate(lengths, start=1):
        videos.append(
            {
                "id": v,
                "height": HEIGHT,
                "width": WIDTH,
                "length": length,
                "file_names": [f"v{v}/{t:05d}.png" for t in range(length)],
            }
        )
        moving = [[2 + t, 3, 8, 6] for t in range(length)]
        late = [None if t == 0 else [15, 5 + t, 10, 7] for t in range(length)]
        for k, boxes in enumerate((moving, late)):
            track = {"id": 10 * v + k, "video_id": v, "category_id": (7, 3)[k], "iscrowd": 0}
            track["bboxes"] = boxes
            if masks:
                track["segmentations"] = [box and rectangle(*box) for box in boxes]
            annotations.append(track)
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "emu"}]
    return {"videos": videos, "categories": categories, "annotations": annotations}


def write_json(folder: Path, content: Any, name: str = "instances.json") -> str:
    """Path of a JSON file with this content."""
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def write_frames(folder: Path, content: dict[str, Any]) -> str:
    """Image root with a frame for each file name: red is x, green is y, blue is 10 x the frame."""
    root = folder / "frames"
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    for video in content["videos"]:
        for t, name in enumerate(video["file_names"]):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            image = np.stack([8 * x, 12 * y, np.full_like(x, 10 * t)], axis=-1).astype(np.uint8)
            Image.fromarray(image).save(root / name)
    return str(root)


def data_cfg(*overrides: object) -> CfgNode:
    """A config that leaves frames as they are: no resize, no flip, no workers."""
    cfg = base_cfg()
    cfg.merge_from_list(
        [
            *("INPUT.FORMAT", "RGB", "INPUT.RANDOM_FLIP", "none"),
            *("INPUT.MIN_SIZE_TRAIN", (HEIGHT,), "INPUT.MIN_SIZE_TEST", HEIGHT),
            *("INPUT.MIN_SIZE_TRAIN_SAMPLING", "choice", "INPUT.SAMPLING_FRAME_NUM", 2),
            *("DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2, "SEED", 7),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3),
            *overrides,
        ]
    )
    return cfg
