"""Small YouTube-VIS ground truths and results with random masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

GOLDEN_DIR = Path(__file__).resolve().parent.parent / "golden"


def golden_case(name: str) -> dict[str, Any]:
    """``gt``, ``results`` and the official evaluator's ``expected`` (in [0, 1]) of a case."""
    return json.loads((GOLDEN_DIR / f"eval_{name}.json").read_text())


def encode(mask: np.ndarray) -> dict[str, Any]:
    """COCO's own RLE of a mask [H,W], with counts as str."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def random_track(
    rng: np.random.RandomState, length: int, height: int, width: int, empty: float = 0.2
) -> np.ndarray:
    """A rectangle that wanders, bool [T,H,W]; each frame is empty with a probability."""
    masks = np.zeros((length, height, width), dtype=bool)
    h, w = rng.randint(height // 4, height // 2 + 1), rng.randint(width // 4, width // 2 + 1)
    for t in range(length):
        if rng.rand() < empty:
            continue
        y, x = rng.randint(0, height - h + 1), rng.randint(0, width - w + 1)
        masks[t, y : y + h, x : x + w] = True
    return masks


def make_ground_truth(rng: np.random.RandomState, num_videos: int = 3) -> dict[str, Any]:
    """A YTVIS annotation file with masks: videos of different sizes, two classes, ids 2 and 5."""
    videos, annotations = [], []
    for video_id in range(10, 10 + num_videos):
        length, height, width = rng.randint(1, 5), rng.randint(8, 30), rng.randint(8, 30)
        names = [f"v{video_id}/{t:05d}.jpg" for t in range(length)]
        videos.append(
            {
                "id": video_id,
                "height": int(height),
                "width": int(width),
                "length": int(length),
                "file_names": names,
            }
        )
        for category_id in (2, 5, 5):
            masks = random_track(rng, length, height, width, empty=0.0 if category_id == 2 else 0.3)
            annotations.append(
                {
                    "id": len(annotations),  # from 0, which pycocotools would take for "no match"
                    "video_id": video_id,
                    "category_id": category_id,
                    "segmentations": [encode(mask) if mask.any() else None for mask in masks],
                    "bboxes": [coco_mask.toBbox(encode(mask)).tolist() for mask in masks],
                }
            )
    categories = [{"id": 2, "name": "fish"}, {"id": 5, "name": "crab"}]
    return {"videos": videos, "categories": categories, "annotations": annotations}


def perfect_results(ground_truth: dict[str, Any]) -> list[dict[str, Any]]:
    """A submission that repeats the ground truth, with a different score for each track."""
    return [
        {
            "video_id": annotation["video_id"],
            "category_id": annotation["category_id"],
            "score": 0.9 - 0.01 * index,
            "segmentations": annotation["segmentations"],
        }
        for index, annotation in enumerate(ground_truth["annotations"])
    ]
