"""Masks of the objects of one image, as bitmaps or as polygons."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures.boxes import Boxes
from torch import Tensor


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Draw the union of polygons.

    Args:
        polygons: Each x0, y0, x1, y1, ... in pixels.
        height: Rows of the bitmap.
        width: Columns of the bitmap.

    Returns:
        bool [height, width].
    """
    if len(polygons) == 0:  # pycocotools refuses an empty list
        return np.zeros((height, width), dtype=bool)
    rles = mask_util.frPyObjects(list(polygons), height, width)
    return mask_util.decode(mask_util.merge(rles)).astype(bool)


class BitMasks:
    """N bitmaps.

    Attributes:
        tensor: bool [N, H, W].
        image_size: (H, W).
    """

    def __init__(self, tensor: Tensor | np.ndarray) -> None:
        if isinstance(tensor, Tensor):
            tensor = tensor.to(torch.bool)
        else:
            tensor = torch.as_tensor(tensor, dtype=torch.bool, device="cpu")
        if tensor.dim() != 3:
            raise AssertionError(f"BitMasks need a tensor [N, H, W], got {list(tensor.shape)}.")
        self.image_size = tensor.shape[1:]
        self.tensor = tensor

    def to(self, *args: Any, **kwargs: Any) -> BitMasks:
        """The masks on another device."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        """Where the masks are."""
        return self.tensor.device

    def __getitem__(self, item: int | slice | Tensor) -> BitMasks:
        if isinstance(item, int):
            return BitMasks(self.tensor[item].unsqueeze(0))
        selected = self.tensor[item]
        if selected.dim() != 3:
            raise AssertionError(f"BitMasks[{item}] is not a list of masks.")
        return BitMasks(selected)

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"

    def nonempty(self) -> Tensor:
        """Which masks have a pixel, [N] bool."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: PolygonMasks | Sequence[Sequence[np.ndarray]], height: int, width: int
    ) -> BitMasks:
        """Draw the polygons of each object."""
        polygons = (
            polygon_masks.polygons if isinstance(polygon_masks, PolygonMasks) else polygon_masks
        )
        bitmaps = [torch.from_numpy(polygons_to_bitmask(p, height, width)) for p in polygons]
        if not bitmaps:
            return BitMasks(torch.zeros(0, height, width, dtype=torch.bool))
        return BitMasks(torch.stack(bitmaps))

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes, on the CPU: x2, y2 are one behind the last pixel; zeros if empty."""
        boxes = torch.zeros(len(self), 4, dtype=torch.float32)
        columns, rows = self.tensor.any(dim=1).cpu(), self.tensor.any(dim=2).cpu()
        for index in self.nonempty().nonzero().flatten().tolist():
            x, y = columns[index].nonzero().flatten(), rows[index].nonzero().flatten()
            boxes[index] = torch.stack([x[0], y[0], x[-1] + 1, y[-1] + 1]).to(torch.float32)
        return Boxes(boxes)

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """All masks of a list, in its order."""
        if not bitmasks_list:
            raise AssertionError("BitMasks.cat needs at least one element.")
        return type(bitmasks_list[0])(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))


class PolygonMasks:
    """Masks of N objects, each the union of polygons. They stay on the CPU.

    Args:
        polygons: For each object a list of polygons x0, y0, x1, y1, ... with three or more points.

    Raises:
        ValueError: The nesting is another one, or a polygon has too few or an odd number of
            coordinates.
    """

    def __init__(self, polygons: list[list[np.ndarray | Tensor | Sequence[float]]]) -> None:
        if not isinstance(polygons, list):
            raise ValueError(f"PolygonMasks need a list of objects, got {type(polygons).__name__}.")
        self.polygons: list[list[np.ndarray]] = [self._read_object(entry) for entry in polygons]

    @staticmethod
    def _read_object(polygons: list) -> list[np.ndarray]:
        if not isinstance(polygons, list):
            raise ValueError(
                f"Each object needs a list of polygons, got {type(polygons).__name__}."
            )
        arrays = []
        for polygon in polygons:
            values = polygon.cpu().numpy() if isinstance(polygon, Tensor) else polygon
            array = np.asarray(values).astype("float64")
            if len(array) % 2 != 0 or len(array) < 6:
                raise ValueError(
                    f"A polygon needs 6 or more coordinates, an even number; got {len(array)}."
                )
            arrays.append(array)
        return arrays

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        """The same object: polygons do not move."""
        return self

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    def get_bounding_boxes(self) -> Boxes:
        """Tight boxes around the points of each object."""
        boxes = torch.zeros(len(self), 4, dtype=torch.float32)
        for index, polygons in enumerate(self.polygons):
            low, high = torch.full((2,), float("inf")), torch.zeros(2)
            for polygon in polygons:
                points = torch.from_numpy(polygon).view(-1, 2).to(torch.float32)
                low = torch.minimum(low, points.amin(dim=0))
                high = torch.maximum(high, points.amax(dim=0))
            boxes[index] = torch.cat([low, high])
        return Boxes(boxes)

    def nonempty(self) -> Tensor:
        """Which objects have a polygon, [N] bool."""
        return torch.tensor([len(polygons) > 0 for polygons in self.polygons], dtype=torch.bool)

    def area(self) -> Tensor:
        """Sum of the areas of each object's polygons, [N] (shoelace formula)."""
        areas = []
        for polygons in self.polygons:
            total = 0.0
            for polygon in polygons:
                x, y = polygon[0::2], polygon[1::2]
                total += 0.5 * np.abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
            areas.append(total)
        return torch.tensor(areas)

    def __getitem__(self, item: int | slice | list[int] | Tensor) -> PolygonMasks:
        if isinstance(item, int):
            return PolygonMasks([self.polygons[item]])
        if isinstance(item, slice):
            return PolygonMasks(self.polygons[item])
        if isinstance(item, Tensor):
            if item.dtype == torch.bool:
                item = item.nonzero().squeeze(1)
            elif item.dtype not in (torch.int32, torch.int64):
                raise ValueError(f"PolygonMasks cannot be indexed by a tensor of {item.dtype}.")
            item = item.tolist()
        return PolygonMasks([self.polygons[index] for index in item])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"

    @staticmethod
    def cat(polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """All objects of a list, in its order."""
        if not polymasks_list:
            raise AssertionError("PolygonMasks.cat needs at least one element.")
        polygons = itertools.chain.from_iterable(masks.polygons for masks in polymasks_list)
        return type(polymasks_list[0])(list(polygons))
