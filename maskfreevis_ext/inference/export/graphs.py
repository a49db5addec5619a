"""The graphs that an exported model consists of, with example inputs.

``frames`` is backbone and pixel decoder, which see one frame at a time; ``decoder`` finds the
objects of a window of frames; ``rating`` (only of models whose heads rate tracks) chooses masks and
rates the tracks that are kept. Between them the caller keeps maps of frames and selects tracks.

Shape letters: N frames, T frames of a window, K maps, Q queries, R kept queries, (Hp, Wp) padded
size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.modeling.heads import AuxHead, rate_queries
from maskfreevis_ext.modeling.meta_arch import VideoMaskFormer

GRAPH_NAMES = ("frames", "decoder", "rating")
#: Outputs of the decoder in evaluation that a graph gives.
DECODER_OUTPUTS = ("pred_logits", "pred_masks", "queries", "mask_embed", "mask_logits")
#: Entries in results that can be computed from these outputs alone, by the head that adds them.
_KNOWN_RESULTS = ("spatial_bias",)
_MAX_LENGTH = 4096  # of an axis of any length


@dataclass(frozen=True)
class Graph:
    """A module to export.

    Attributes:
        name: Name of its files.
        module: Maps ``example`` to a dict of tensors.
        example: Arguments; tensors, and lists of tensors.
        axes: Names of the axes of any length of each argument, by the number of the axis.
        arguments: Names of the arguments.
        min_length: Least length of these axes in a torch.export graph. PyTorch traces layers of the
            decoder differently for a length of 1.
    """

    name: str
    module: nn.Module
    example: tuple[Any, ...]
    axes: tuple[dict[int, str], ...]
    arguments: tuple[str, ...]
    min_length: int = 2

    def inputs(self) -> dict[str, list[int | str]]:
        """Shape of each input, with the names of its axes of any length; lists are numbered."""
        shapes: dict[str, list[int | str]] = {}
        for name, argument, axes in zip(self.arguments, self.example, self.axes, strict=True):
            is_list = isinstance(argument, list)
            for number, value in enumerate(argument if is_list else [argument]):
                shape = [axes.get(axis, length) for axis, length in enumerate(value.shape)]
                shapes[f"{name}_{number}" if is_list else name] = shape
        return shapes

    def fits(self, other: Graph) -> bool:
        """Whether a torch.export graph made from this one takes the example of ``other``."""
        lengths = [
            value.shape[axis]
            for argument, axes in zip(other.example, other.axes, strict=True)
            for value in (argument if isinstance(argument, list) else [argument])
            for axis in axes
        ]
        return min(lengths) >= self.min_length

    def dynamic_shapes(self) -> tuple[Any, ...]:
        """The axes of any length, as ``torch.export.export`` takes them."""
        names = {name for axes in self.axes for name in axes.values()}
        dims = {
            name: torch.export.Dim(name, min=self.min_length, max=_MAX_LENGTH) for name in names
        }
        shapes: list[Any] = []
        for argument, axes in zip(self.example, self.axes, strict=True):
            shape = {axis: dims[name] for axis, name in axes.items()}
            shapes.append([shape] * len(argument) if isinstance(argument, list) else shape)
        return tuple(shapes)


class FrameGraph(nn.Module):
    """Normalised frames → mask features and encoded maps."""

    def __init__(self, model: VideoMaskFormer) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.pixel_decoder = model.sem_seg_head.pixel_decoder

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Process frames separately.

        Args:
            images: (N, 3, Hp, Wp), (value - mean) / standard deviation, padding 0.

        Returns:
            ``mask_features`` (N, C, Hp/4, Wp/4), and ``map_0`` … (N, D, h_k, w_k), coarse first.
        """
        mask_features, maps = self.pixel_decoder(self.backbone(images))
        return {"mask_features": mask_features, **{f"map_{k}": m for k, m in enumerate(maps)}}


class DecoderGraph(nn.Module):
    """Maps of the frames of a window → objects of the window."""

    def __init__(self, model: VideoMaskFormer) -> None:
        super().__init__()
        self.predictor = model.sem_seg_head.predictor

    def forward(self, mask_features: Tensor, maps: list[Tensor]) -> dict[str, Tensor]:
        """Find the objects of a window.

        Args:
            mask_features: (T, C, h, w).
            maps: K maps, (T, D, h_k, w_k), coarse first.

        Returns:
            ``pred_logits`` (Q, classes + 1), ``pred_masks`` (Q, T, h, w), and what heads add:
            ``queries`` (Q, D), ``mask_embed`` (Q, C), ``mask_logits`` (T, h', w').
        """
        outputs = self.predictor(maps, mask_features, mask_features.shape[0])
        return {name: outputs[name][0] for name in DECODER_OUTPUTS if name in outputs}


class RatingGraph(nn.Module):
    """Kept queries of a window → their masks and the factors on their scores."""

    def __init__(self, model: VideoMaskFormer) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_rating_heads(model))

    def forward(
        self, queries: Tensor, mask_embed: Tensor, pred_masks: Tensor, mask_features: Tensor
    ) -> dict[str, Tensor]:
        """Choose masks and rate tracks.

        Args:
            queries: (R, D).
            mask_embed: (R, C).
            pred_masks: (R, T, h, w).
            mask_features: (T, C, h, w).

        Returns:
            ``masks`` (R, T, h, w), logits, and ``factor`` (R,), in [0, 1].
        """
        outputs = {
            "queries": queries,
            "mask_embed": mask_embed,
            "pred_masks": pred_masks,
            "mask_features": mask_features.transpose(0, 1),
        }
        kept = torch.arange(queries.shape[0])
        rating = rate_queries(cast("Iterable[AuxHead]", self.heads), outputs, kept)
        return {"masks": rating.masks, "factor": rating.factor}


def check_heads(model: VideoMaskFormer) -> None:
    """Check that the graphs give all that the model's heads add to a result.

    Raises:
        ConfigError: A head has results of its own, which no graph computes.
    """
    for name, head in model.heads.items():
        if type(head).results is not AuxHead.results and name not in _KNOWN_RESULTS:
            raise ConfigError(
                f"The head {name} ({type(head).__name__}) adds results of its own, which cannot be"
                " exported. Switch it off for the export."
            )


def _rating_heads(model: VideoMaskFormer) -> list[AuxHead]:
    """The heads that rate tracks."""
    return [head for head in model.heads.values() if type(head).rate is not AuxHead.rate]


@torch.no_grad()
def build_graphs(
    model: VideoMaskFormer, padded_size: tuple[int, int], num_frames: int, seed: int = 0
) -> list[Graph]:
    """The graphs of a model, with inputs made from noise.

    Args:
        model: In eval mode, on the CPU.
        padded_size: (Hp, Wp).
        num_frames: Frames of the examples.
        seed: Of the noise.

    Raises:
        ConfigError: A head of the model cannot be exported.
    """
    check_heads(model)
    noise = torch.Generator().manual_seed(seed)
    images = torch.randn(num_frames, 3, *padded_size, generator=noise)
    frames, decoder = FrameGraph(model), DecoderGraph(model)
    encoded = frames(images)
    mask_features = encoded.pop("mask_features")
    maps = list(encoded.values())
    each = {0: "frames"}
    graphs = [
        Graph("frames", frames, (images,), (each,), ("images",), min_length=1),
        Graph("decoder", decoder, (mask_features, maps), (each, each), ("mask_features", "maps")),
    ]
    if _rating_heads(model):
        outputs = decoder(mask_features, maps)
        names = ("queries", "mask_embed", "pred_masks")
        # another number than that of the frames, so that the two axes are not taken for one
        kept = slice(0, max(num_frames - 1, 1))
        example = (*(outputs[name][kept].clone() for name in names), mask_features)
        axes = ({0: "tracks"}, {0: "tracks"}, {0: "tracks", 1: "frames"}, each)
        graphs.append(Graph("rating", RatingGraph(model), example, axes, (*names, "mask_features")))
    return graphs
