"""Clips as the reference loads them: every frame by itself, with the masks of all its objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask


def literal_clip(
    video: dict[str, Any],
    indices: Sequence[int],
    transforms: T.TransformList,
    image_format: str = "RGB",
) -> dict[str, Any]:
    """Frames and objects of a clip, frame by frame.

    Args:
        video: Dataset dict whose objects have masks.
        indices: Frames of the clip.
        transforms: Of the clip, applied to each frame, box and mask.
        image_format: "RGB" or "BGR".

    Returns:
        ``image``, T tensors (3, H, W) uint8, and ``instances``, T ``Instances`` with ``gt_boxes``,
        ``gt_classes``, ``gt_ids`` and ``gt_masks``.
    """
    images, instances = [], []
    for index in indices:
        with Image.open(video["file_names"][index]) as image:
            frame = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        frame = transforms.apply_image(frame[:, :, ::-1] if image_format == "BGR" else frame)
        images.append(torch.as_tensor(np.ascontiguousarray(frame.transpose(2, 0, 1))))
        height, width = frame.shape[:2]
        objects = [item for item in video["annotations"][index] if not item["iscrowd"]]
        boxes, masks = np.zeros((len(objects), 4)), []
        for n, item in enumerate(objects):
            box = BoxMode.convert(item["bbox"], item["bbox_mode"], BoxMode.XYXY_ABS)
            box = transforms.apply_box(np.array([box]))[0]
            boxes[n] = np.clip(box, 0, [width, height, width, height])
            mask = coco_mask.decode(item["segmentation"])
            masks.append(transforms.apply_segmentation(mask).astype(bool))
        found = Instances((height, width))
        found.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
        found.gt_classes = torch.tensor([item["category_id"] for item in objects])
        found.gt_ids = torch.tensor([item["id"] for item in objects])
        stacked = np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool)
        found.gt_masks = BitMasks(torch.from_numpy(stacked))
        instances.append(found)
    return {"image": images, "instances": instances}
