"""Masks of the objects of one image, as bitmaps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


class BitMasks:
    """N bitmaps.

    Attributes:
        tensor: bool [N, H, W].
        image_size: (H, W).

    Raises:
        AssertionError: The tensor has another shape than [N, H, W].
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
        """Device of the tensor."""
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
