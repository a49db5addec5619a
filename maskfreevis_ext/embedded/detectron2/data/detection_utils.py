"""Reading images, and moving annotations along with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import transforms as T
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    PolygonMasks,
    polygons_to_bitmask,
)
from detectron2.utils.file_io import PathManager
from PIL import Image

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "check_image_size",
    "convert_PIL_to_numpy",
    "filter_empty_instances",
    "read_image",
    "transform_instance_annotations",
]

_EXIF_ORIENTATION = 274
_EXIF_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class SizeMismatchError(ValueError):
    """An image has another size than its annotation says."""


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """A Pillow image as an array.

    Args:
        image: The image.
        format: A mode of Pillow, or BGR; None keeps the image's own.

    Returns:
        uint8 [H, W, C]; [H, W, 1] for L.
    """
    if format is not None:
        image = image.convert("RGB" if format == "BGR" else format)
    array = np.asarray(image)
    if format == "L":
        return array[:, :, None]
    return array[:, :, ::-1] if format == "BGR" else array


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image, turned upright as its EXIF data say.

    Args:
        file_name: Path or URL.
        format: A mode of Pillow, or BGR.

    Returns:
        uint8 [H, W, C].
    """
    with PathManager.open(file_name, "rb") as stream:
        image = Image.open(stream)
        try:
            method = _EXIF_TRANSPOSE.get(image.getexif().get(_EXIF_ORIENTATION))
        except Exception:  # EXIF data of cameras are broken in many ways; the image is not
            method = None
        return convert_PIL_to_numpy(image if method is None else image.transpose(method), format)


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Compare an image with ``width`` and ``height`` of its dict, and fill these in where they are absent.

    Raises:
        SizeMismatchError: They differ.
    """
    height, width = image.shape[:2]
    if "width" in dataset_dict or "height" in dataset_dict:
        expected = (dataset_dict["width"], dataset_dict["height"])
        if (width, height) != expected:
            name = dataset_dict.get("file_name", "")
            raise SizeMismatchError(
                f"Image {name} has (width, height) {(width, height)}, its annotation says {expected}. "
                "Correct the annotation."
            )
    dataset_dict.setdefault("width", width)
    dataset_dict.setdefault("height", height)


def transform_instance_annotations(
    annotation: dict[str, Any],
    transforms: T.Transform | T.TransformList | Sequence[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: Any = None,
) -> dict[str, Any]:
    """Apply transforms to the box and the segmentation of one object, in place.

    Args:
        annotation: ``bbox``, ``bbox_mode`` and perhaps ``segmentation`` (polygons or RLE).
        transforms: What was done to the image.
        image_size: (height, width) after it.
        keypoint_hflip_indices: Not used; there are no keypoints here.

    Returns:
        ``annotation``: the box is XYXY_ABS and clipped to the image, an RLE has become a bitmap.

    Raises:
        ValueError: The segmentation has another type.
    """
    if isinstance(transforms, (tuple, list)):
        transforms = T.TransformList(transforms)
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    box = transforms.apply_box(np.array([box]))[0].clip(min=0)
    height, width = image_size
    annotation["bbox"] = np.minimum(box, [width, height, width, height])
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    if "segmentation" not in annotation:
        return annotation
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        polygons = [np.asarray(polygon).reshape(-1, 2) for polygon in segmentation]
        annotation["segmentation"] = [
            polygon.reshape(-1) for polygon in transforms.apply_polygons(polygons)
        ]
    elif isinstance(segmentation, dict):
        bitmap = transforms.apply_segmentation(mask_util.decode(segmentation))
        if tuple(bitmap.shape[:2]) != tuple(image_size):
            raise AssertionError(
                f"A mask has the shape {bitmap.shape[:2]}, its image {tuple(image_size)}."
            )
        annotation["segmentation"] = bitmap
    else:
        raise ValueError(
            f"A segmentation is a list of polygons or an RLE dict, not a {type(segmentation)}."
        )
    return annotation


def _to_bitmap(segmentation: Any, image_size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *image_size)
    if isinstance(segmentation, dict):
        return mask_util.decode(segmentation)
    if isinstance(segmentation, np.ndarray):
        if segmentation.ndim != 2:
            raise AssertionError(f"A bitmap has 2 dimensions, got {segmentation.ndim}.")
        return segmentation
    raise ValueError(
        f"A segmentation is a list of polygons, an RLE dict or a bitmap, not a {type(segmentation)}."
    )


def annotations_to_instances(
    annos: Sequence[dict[str, Any]], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Objects of an image as ``Instances`` with ``gt_boxes``, ``gt_classes`` and, where given, ``gt_masks``.

    Args:
        annos: ``bbox``, ``bbox_mode``, ``category_id`` and perhaps ``segmentation`` of each object.
        image_size: (height, width).
        mask_format: ``polygon`` or ``bitmask``.

    Raises:
        ValueError: A segmentation does not fit the mask format.
    """
    instances = Instances(image_size)
    boxes = [BoxMode.convert(anno["bbox"], anno["bbox_mode"], BoxMode.XYXY_ABS) for anno in annos]
    instances.gt_boxes = Boxes(np.stack(boxes) if boxes else np.zeros((0, 4)))
    instances.gt_classes = torch.tensor(
        [int(anno["category_id"]) for anno in annos], dtype=torch.int64
    )
    if not annos or "segmentation" not in annos[0]:
        return instances
    segmentations = [anno["segmentation"] for anno in annos]
    if mask_format == "polygon":
        try:
            instances.gt_masks = PolygonMasks(segmentations)
        except ValueError as error:
            raise ValueError(
                "These segmentations cannot be used with mask_format=polygon."
            ) from error
        return instances
    if mask_format != "bitmask":
        raise AssertionError(f"mask_format {mask_format!r}, expected 'polygon' or 'bitmask'.")
    bitmaps = [np.ascontiguousarray(_to_bitmap(s, image_size)) for s in segmentations]
    instances.gt_masks = BitMasks(torch.stack([torch.from_numpy(bitmap) for bitmap in bitmaps]))
    return instances


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, torch.Tensor]:
    """Drop objects without an area.

    Args:
        instances: With ``gt_boxes`` and perhaps ``gt_masks``.
        by_box: Drop those with a box side of at most ``box_threshold``.
        by_mask: Drop those with an empty mask.
        box_threshold: Pixels.
        return_mask: Return which ones were kept as well, [N] bool.
    """
    tests = []
    if by_box:
        tests.append(instances.gt_boxes.nonempty(threshold=box_threshold))
    if by_mask and instances.has("gt_masks"):
        tests.append(instances.gt_masks.nonempty())
    if not tests:
        return instances
    keep = torch.stack(tests).all(dim=0)
    return (instances[keep], keep) if return_mask else instances[keep]
