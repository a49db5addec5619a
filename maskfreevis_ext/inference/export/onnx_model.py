"""An exported model in the place of the torch model: the same predictor, windows and tools.

``OnnxModel`` is a ``VideoMaskFormer`` whose pixel decoder, video decoder and heads are ONNX graphs,
so that whatever calls the parts of the model runs the graphs. It needs no weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms
from torch import Tensor, nn

from maskfreevis_ext.class_names import check_class_names, set_class_names
from maskfreevis_ext.config import load_config
from maskfreevis_ext.errors import CheckpointError, ConfigError, DataError
from maskfreevis_ext.inference.predictor import VideoPredictor
from maskfreevis_ext.modeling.criterion import VideoSetCriterion
from maskfreevis_ext.modeling.heads.base import AuxHead, Rating
from maskfreevis_ext.modeling.mask_former_head import MaskFormerHead
from maskfreevis_ext.modeling.meta_arch import VideoMaskFormer
from maskfreevis_ext.ops.clip import FrameSizes, frame_probabilities

DESCRIPTION_NAME = "export.json"
CONFIG_NAME = "config.yaml"
_FORMAT = 1
_KEYS = ("pixel_mean", "pixel_std", "frame_size", "padded_size", "categories", "graphs")


class OnnxGraph:
    """An ONNX file as a function of tensors.

    Args:
        path: The file.
        use_gpu: Run on the GPU where the installed ONNX Runtime can.

    Raises:
        ConfigError: ONNX Runtime is not installed.
        CheckpointError: The file is not a graph that ONNX Runtime can run.
    """

    def __init__(self, path: str | os.PathLike[str], use_gpu: bool = False) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(
                f"{path}: running ONNX files needs onnxruntime, but importing it fails: {error}."
                " Install it: pip install onnxruntime."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        wanted = ["CUDAExecutionProvider"] * use_gpu + ["CPUExecutionProvider"]
        known = onnxruntime.get_available_providers()
        providers = [provider for provider in wanted if provider in known]
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers)
        except Exception as error:  # it has no base class of its own for its errors
            first = str(error).splitlines()[0]
            raise CheckpointError(
                f"{path}: ONNX Runtime cannot load this graph: {first}"
            ) from error
        self._inputs = [one.name for one in self._session.get_inputs()]
        self.outputs = [one.name for one in self._session.get_outputs()]

    def __call__(self, *arguments: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Args:
            arguments: The inputs in order; lists of tensors count as several inputs.

        Returns:
            The outputs by name, on the CPU.
        """
        flat: list[Tensor] = []
        for argument in arguments:
            flat.extend([argument] if isinstance(argument, Tensor) else argument)
        arrays = [np.ascontiguousarray(tensor.detach().cpu().numpy()) for tensor in flat]
        results = self._session.run(None, dict(zip(self._inputs, arrays, strict=True)))
        return {
            name: torch.from_numpy(value) for name, value in zip(self.outputs, results, strict=True)
        }


class _Frames(nn.Module):
    """Stands in for the backbone: its only map are the frames themselves."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Pass on normalised frames (N, 3, Hp, Wp)."""
        return {"frames": images}


class _OnnxPixelDecoder(nn.Module):
    """Stands in for backbone and pixel decoder."""

    def __init__(self, graph: OnnxGraph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Mask features and encoded maps of what ``_Frames`` gives."""
        outputs = self.graph(features["frames"])
        mask_features = outputs.pop("mask_features")
        return mask_features, list(outputs.values())


class _OnnxDecoder(nn.Module):
    """Stands in for the video decoder."""

    def __init__(self, graph: OnnxGraph, heads: dict[str, AuxHead]) -> None:
        super().__init__()
        self.graph = graph
        self.heads = heads

    def forward(
        self,
        maps: Sequence[Tensor],
        mask_features: Tensor,
        num_frames: int,
        return_aux: bool = False,
        num_views: int | None = None,
    ) -> dict[str, Tensor]:
        """Outputs for one clip, with their batch axis; the arguments are those of the decoder."""
        if num_views is not None:
            raise DataError("An exported model takes clips of one camera, got num_views.")
        outputs = self.graph(mask_features, list(maps))
        outputs["mask_features"] = mask_features.transpose(0, 1)
        return {name: value[None] for name, value in outputs.items()}


class _OnnxHeads(AuxHead):
    """Stands in for all auxiliary heads."""

    name = "onnx_heads"

    def __init__(self, rating: OnnxGraph | None) -> None:
        super().__init__()
        self.rating = rating

    def rate(self, outputs: dict[str, Tensor], kept: Tensor) -> Rating | None:
        """Run the graph on the kept queries."""
        masks = outputs["pred_masks"][kept]
        if self.rating is None or not len(kept):
            return None
        queries, mask_embed = outputs["queries"][kept], outputs["mask_embed"][kept]
        found = self.rating(queries, mask_embed, masks, outputs["mask_features"].transpose(0, 1))
        return Rating(found["masks"], found["factor"])

    def results(self, outputs: dict[str, Tensor], sizes: FrameSizes) -> dict[str, Any]:
        """``dynamic_mask``, where the model has a spatial mask head."""
        if "mask_logits" not in outputs:
            return {}
        return {"dynamic_mask": frame_probabilities(outputs["mask_logits"], *sizes)}


class OnnxModel(VideoMaskFormer):
    """The model of a folder that ``tools/export_model.py`` wrote.

    Args:
        folder: The folder.
        cfg: The config of the folder; the keys of inference may differ.

    Raises:
        ConfigError: ONNX Runtime is not installed.
        CheckpointError: The folder does not have a complete ONNX export.
    """

    def __init__(self, folder: str | os.PathLike[str], cfg: CfgNode) -> None:
        description = read_description(folder)
        use_gpu = cfg.MODEL.DEVICE.startswith("cuda")
        graphs = {
            name: OnnxGraph(_graph_file(folder, entry), use_gpu)
            for name, entry in description["graphs"].items()
        }
        heads: dict[str, AuxHead] = {_OnnxHeads.name: _OnnxHeads(graphs.get("rating"))}
        super().__init__(
            backbone=_Frames(),
            sem_seg_head=MaskFormerHead(
                pixel_decoder=_OnnxPixelDecoder(graphs["frames"]),
                predictor=_OnnxDecoder(graphs["decoder"], heads),
            ),
            criterion=VideoSetCriterion(cfg),
            pixel_mean=description["pixel_mean"],
            pixel_std=description["pixel_std"],
            size_divisibility=1,
            num_tracks=cfg.MODEL.MASKFREE.TEST.NUM_TRACKS,
            frames_per_chunk=cfg.MODEL.MASKFREE.TEST.FRAMES_PER_CHUNK,
            deep_supervision=False,
        )
        self.frame_size: tuple[int, int] = tuple(description["frame_size"])
        self.padded_size: tuple[int, int] = tuple(description["padded_size"])
        names = [entry.get("name") for entry in description["categories"]]
        set_class_names(self, check_class_names(names))
        self.eval()

    def _padded_size(self, sizes: list[tuple[int, int]]) -> tuple[int, int]:
        """The size of the graphs."""
        height, width = self.padded_size
        for size in sizes:
            if size[0] > height or size[1] > width:
                raise DataError(
                    f"expected frames of at most {height} x {width} (rows x columns), the size that"
                    f" the model was exported for, got {size[0]} x {size[1]}."
                )
        return self.padded_size


class _FitInside(transforms.ResizeShortestEdge):
    """Resizes like the test loader, and further where the frame would not fit the graphs."""

    def __init__(self, min_size: int, max_size: int, frame_size: tuple[int, int]) -> None:
        super().__init__([min_size, min_size], max_size)
        self.min_size = min_size
        self.frame_size = frame_size

    def get_transform(self, image: np.ndarray) -> transforms.Transform:
        """The resizing of a picture (H, W, 3)."""
        size = height, width = image.shape[:2]
        if self.min_size:
            size = self.get_output_shape(height, width, self.min_size, self.max_size)
        shrink = min(
            1.0, *(most / length for most, length in zip(self.frame_size, size, strict=True))
        )
        new_height, new_width = (max(1, round(shrink * length)) for length in size)
        return transforms.ResizeTransform(height, width, new_height, new_width, self.interp)


class OnnxPredictor(VideoPredictor):
    """A ``VideoPredictor`` that runs an exported model.

    Args:
        folder: What ``tools/export_model.py`` wrote.
        cfg: What ``load_exported_config`` gives for the folder; None: without overrides.

    Raises:
        ConfigError: The config cannot be used, or ONNX Runtime is not installed.
        CheckpointError: The folder does not have a complete ONNX export.
    """

    def __init__(self, folder: str | os.PathLike[str], cfg: CfgNode | None = None) -> None:
        cfg = cfg or load_exported_config(folder)
        model = OnnxModel(folder, cfg)
        super().__init__(cfg, model)
        self._resize = _FitInside(
            cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, model.frame_size
        )


def load_exported_config(
    folder: str | os.PathLike[str], opts: Sequence[str] = (), device: str | None = None
) -> CfgNode:
    """The config of an exported model, whose only data set has the model's classes.

    Args:
        folder: What ``tools/export_model.py`` wrote.
        opts: Overrides, KEY VALUE KEY VALUE and so on, for example of TEST.WINDOW.
        device: Overrides MODEL.DEVICE.

    Raises:
        CheckpointError: The folder has no description.
        ConfigError: An override cannot be used.
    """
    read_description(folder)
    place = os.path.realpath(folder)
    classes = f"export:{place}"
    datasets = {
        "INPUT.DATASETS": [[classes, os.path.join(place, DESCRIPTION_NAME), place]],
        "DATASETS.TEST": (classes,),
        "DATASETS.TRAIN": (),
    }
    own = [str(word) for pair in datasets.items() for word in pair]
    return load_config(os.path.join(place, CONFIG_NAME), [*own, *opts], device)


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of ``export.json``.

    Args:
        folder: What ``tools/export_model.py`` wrote.

    Raises:
        CheckpointError: There is no such file, or it is not of this version of the format.
    """
    path = Path(folder) / DESCRIPTION_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected the description of an exported model, but it cannot be read:"
            f" {error}. tools/export_model.py writes such folders."
        ) from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != _FORMAT:
        raise CheckpointError(f"{path}: format: expected {_FORMAT}, got {version!r}. Export again.")
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise CheckpointError(f"{path}: expected the keys {', '.join(_KEYS)}, got no {missing[0]}.")
    return content


def _graph_file(folder: str | os.PathLike[str], entry: dict[str, Any]) -> Path:
    """Path of the ONNX file of a graph."""
    name = entry["files"].get("onnx")
    if name is None:
        raise CheckpointError(
            f"{Path(folder) / DESCRIPTION_NAME}: expected ONNX files, got {sorted(entry['files'])}."
            " Export with --formats onnx."
        )
    path = Path(folder) / Path(name).name
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; the export is not complete.")
    return path
