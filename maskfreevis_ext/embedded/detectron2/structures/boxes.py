"""Axis-aligned boxes, (x1, y1, x2, y2) in pixels, and conversion from other formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum, unique
from typing import Any

import numpy as np
import torch
from torch import Tensor


@unique
class BoxMode(IntEnum):
    """What the numbers of a box mean."""

    XYXY_ABS = 0  # corners, pixels
    XYWH_ABS = 1  # corner and size, pixels
    XYXY_REL = 2  # corners, fractions of the image
    XYWH_REL = 3  # corner and size, fractions of the image
    XYWHA_ABS = 4  # centre, size and angle

    @staticmethod
    def convert(box: Any, from_mode: BoxMode, to_mode: BoxMode) -> Any:
        """Convert boxes to another format; the input is not changed.

        Args:
            box: A list or tuple of 4 numbers, or an array or tensor [N, 4]. Lists of floats pass
                through float32.
            from_mode: XYXY_ABS or XYWH_ABS.
            to_mode: XYXY_ABS or XYWH_ABS.

        Returns:
            The same type as ``box``.

        Raises:
            NotImplementedError: One of the modes is another one.
        """
        if from_mode == to_mode:
            return box
        if {from_mode, to_mode} != {BoxMode.XYXY_ABS, BoxMode.XYWH_ABS}:
            raise NotImplementedError(f"Boxes cannot be converted from {from_mode} to {to_mode}.")
        is_single = isinstance(box, (list, tuple))
        if is_single:
            if len(box) != 4:
                raise AssertionError(f"A box has 4 numbers, got {len(box)}.")
            values = torch.tensor(box)[None, :]
        elif isinstance(box, np.ndarray):
            values = torch.from_numpy(box).clone()
        else:
            values = box.clone()
        if to_mode == BoxMode.XYXY_ABS:
            values[:, 2:4] += values[:, 0:2]
        else:
            values[:, 2:4] -= values[:, 0:2]
        if is_single:
            return type(box)(values.flatten().tolist())
        return values.numpy() if isinstance(box, np.ndarray) else values


class Boxes:
    """N boxes that can be indexed, moved and iterated over like a tensor.

    Attributes:
        tensor: [N, 4] float32, (x1, y1, x2, y2).

    Raises:
        AssertionError: The tensor has another shape than [N, 4].
    """

    def __init__(self, tensor: Tensor | np.ndarray | Sequence) -> None:
        if isinstance(tensor, Tensor):
            tensor = tensor.to(torch.float32)
        else:
            tensor = torch.as_tensor(tensor, dtype=torch.float32, device="cpu")
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        if tensor.dim() != 2 or tensor.shape[-1] != 4:
            raise AssertionError(f"Boxes need a tensor [N, 4], got {list(tensor.shape)}.")
        self.tensor = tensor

    def to(self, device: torch.device | str) -> Boxes:
        """The boxes on another device."""
        return Boxes(self.tensor.to(device=device))

    @property
    def device(self) -> torch.device:
        """Device of the tensor."""
        return self.tensor.device

    def __getitem__(self, item: int | slice | Tensor) -> Boxes:
        if isinstance(item, int):
            return Boxes(self.tensor[item].view(1, -1))
        selected = self.tensor[item]
        if selected.dim() != 2:
            raise AssertionError(f"Boxes[{item}] is not a list of boxes.")
        return Boxes(selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"
