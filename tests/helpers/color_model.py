"""A model that segments by colour, for tests of what happens to the outputs of a decoder.

It has the methods of ``VideoMaskFormer`` that windows use. Object k is the pixels of colour k of
``COLORS``; its query has another place in every clip, so that only embeddings and masks tell which
is which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskfreevis_ext.modeling.encoded_frames import EncodedFrames
from maskfreevis_ext.ops.clip import FrameSizes

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
#: Probability of an object's class, k + 1 for object k.
SURE = 0.9


class ColorModel(nn.Module):
    """Sees each colour as an object.

    Attributes:
        num_encoded: Frames encoded so far.
        clips: Number of frames of each decoded clip.
        num_tracks: Pairs of query and class that are kept in a clip.
    """

    def __init__(self, num_queries: int = 6, same_embeddings: bool = False) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.same_embeddings = same_embeddings
        self.num_tracks = 4
        self.num_encoded = 0
        self.clips: list[int] = []
        self._random = np.random.RandomState(3)

    def frame_sizes(self, frame_size: tuple[int, int], output_size: tuple[int, int]) -> FrameSizes:
        return FrameSizes(frame_size, frame_size, output_size)

    def encode(self, frames: Tensor) -> EncodedFrames:
        self.num_encoded += len(frames)
        return EncodedFrames(frames.float(), [frames[:, :, ::2, ::2].float()])

    def decode(self, encoded: EncodedFrames, num_views: int | None = None) -> dict[str, Tensor]:
        self.clips.append(encoded.num_frames)
        places = self._random.permutation(self.num_queries)[: len(COLORS)]
        size = encoded.mask_features.shape[-2:]
        masks = torch.full((self.num_queries, encoded.num_frames, *size), -5.0)
        logits = torch.zeros(self.num_queries, len(COLORS) + 2)
        logits[:, -1] = 9  # no object
        queries = torch.zeros(self.num_queries, self.num_queries + 1)
        queries[:, -1] = 1
        rest = torch.tensor((1 - SURE) / (len(COLORS) + 1))
        for k, (place, color) in enumerate(zip(places, COLORS, strict=True)):
            wanted = torch.tensor(color).view(3, 1, 1)
            is_object = (encoded.mask_features - wanted).abs().amax(1) < 30
            if is_object.any():
                masks[place][is_object] = 5.0
                logits[place] = rest.log()
                logits[place, k + 1] = torch.tensor(SURE).log()
                if not self.same_embeddings:
                    queries[place] = torch.eye(self.num_queries + 1)[k]
        return {"pred_logits": logits, "pred_masks": masks, "queries": queries}

    def rate(self, outputs: dict[str, Tensor], kept: Tensor) -> tuple[Tensor, Tensor]:
        return outputs["pred_masks"][kept], torch.ones(len(kept))

    def head_results(self, outputs: dict[str, Tensor], sizes: FrameSizes) -> dict[str, Any]:
        return {"cells": outputs["pred_masks"].gt(0).sum((0, 2, 3)).tolist()}


def draw_frames(places: Sequence[Sequence[int | None]], size: tuple[int, int] = (20, 40)) -> list:
    """Frames uint8 (H, W, 3), RGB: object k is a square of 6 x 6 at column ``places[t][k]``.

    Args:
        places: Of each frame, one column per object, None where it is absent.
        size: (H, W).
    """
    frames = []
    for columns in places:
        frame = np.full((*size, 3), 90, np.uint8)
        for k, column in enumerate(columns):
            if column is not None:
                frame[2 + 3 * k : 8 + 3 * k, column : column + 6] = COLORS[k]
        frames.append(frame)
    return frames
