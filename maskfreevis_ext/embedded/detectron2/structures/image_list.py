"""``ImageList``: images of different sizes in one padded tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class ImageList:
    """Padded images and their sizes before padding.

    Attributes:
        tensor: [N, ..., H, W].
        image_sizes: (height, width) of each image.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> Tensor:
        height, width = self.image_sizes[idx]
        return self.tensor[idx, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """The images on another device or of another type."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> ImageList:
        """Pad images right and below to one common size.

        Args:
            tensors: Images [..., H_i, W_i] with equal leading dimensions.
            size_divisibility: Height and width become multiples of this, if it is above 1.
            pad_value: Value of the padding.
            padding_constraints: ``square_size`` sets both sides; ``size_divisibility`` replaces the
                argument.
        """
        if len(tensors) == 0:
            raise AssertionError("ImageList.from_tensors needs at least one image.")
        lead = tensors[0].shape[:-2]
        if any(image.shape[:-2] != lead for image in tensors):
            raise AssertionError(
                f"Images differ in their leading dimensions: {[list(t.shape) for t in tensors]}."
            )
        sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        target = [max(size[axis] for size in sizes) for axis in (0, 1)]
        if padding_constraints is not None:
            if padding_constraints.get("square_size", 0) > 0:
                target = [padding_constraints["square_size"]] * 2
            size_divisibility = padding_constraints.get("size_divisibility", size_divisibility)
        if size_divisibility > 1:
            target = [-(-side // size_divisibility) * size_divisibility for side in target]
        padded = tensors[0].new_full((len(tensors), *lead, *target), pad_value)
        for canvas, image in zip(padded, tensors, strict=True):
            canvas[..., : image.shape[-2], : image.shape[-1]].copy_(image)
        return ImageList(padded, sizes)
