"""What backbone and pixel decoder make of frames, each frame by itself.

N frames, (h, w) mask features, (h_k, w_k) level k.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class EncodedFrames(NamedTuple):
    """The maps of N frames of one video.

    Attributes:
        mask_features: (N, mask_dim, h, w).
        maps: Encoded maps, coarse first, (N, channels, h_k, w_k) each.
    """

    mask_features: Tensor
    maps: list[Tensor]

    @property
    def num_frames(self) -> int:
        """N."""
        return len(self.mask_features)

    def last(self, count: int) -> EncodedFrames:
        """The last frames, which share the memory of all.

        Args:
            count: Number of frames, 0..N.
        """
        start = self.num_frames - count
        return EncodedFrames(self.mask_features[start:], [level[start:] for level in self.maps])

    @classmethod
    def join(cls, parts: Iterable[EncodedFrames], num_frames: int) -> EncodedFrames:
        """The frames of several parts, one after the other, in one memory.

        Each part is taken when the one before it has been copied, so that parts that are made on
        the way never exist together.

        Args:
            parts: At least one.
            num_frames: N of all parts together.

        Raises:
            ValueError: The parts have another number of frames.
        """
        joined, start = None, 0
        for part in parts:
            if joined is None:
                if part.num_frames == num_frames:
                    return part
                features, *maps = (_empty(x, num_frames) for x in (part.mask_features, *part.maps))
                joined = cls(features, maps)
            end = start + part.num_frames
            if end > num_frames:
                break
            joined.mask_features[start:end] = part.mask_features
            for level, new in zip(joined.maps, part.maps, strict=True):
                level[start:end] = new
            start = end
        if joined is None or start != num_frames:
            raise ValueError(f"expected parts of {num_frames} frames together, got others.")
        return joined


def _empty(like: Tensor, num_frames: int) -> Tensor:
    """Memory for the maps of N frames, channels last where those of ``like`` are."""
    maps = like.new_empty(num_frames, *like.shape[1:])
    is_last = like.dim() == 4 and like.stride(1) == 1
    return maps.contiguous(memory_format=torch.channels_last) if is_last else maps
