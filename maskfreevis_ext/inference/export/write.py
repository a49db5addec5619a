"""Writes the graphs of a model as torch.export and ONNX files, each checked against the model."""

from __future__ import annotations

import contextlib
import importlib
import logging
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental._config as symbolic_shapes
from detectron2.config import CfgNode
from detectron2.data import transforms
from torch import Tensor
from tqdm import tqdm

from maskfreevis_ext.errors import ConfigError, NumericError
from maskfreevis_ext.files import move_into_place, write_json
from maskfreevis_ext.inference.export.graphs import GRAPH_NAMES, Graph, build_graphs, check_heads
from maskfreevis_ext.inference.export.onnx_model import CONFIG_NAME, DESCRIPTION_NAME, OnnxGraph
from maskfreevis_ext.modeling.meta_arch import VideoMaskFormer
from maskfreevis_ext.version import __version__

#: Largest difference from the model, relative to max(1, |value|).
TOLERANCE = 1e-3
#: Ending of the files of each format.
FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
OPSET = 18
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
_FRAMES = (3, 1, 4)  # of the inputs: those that are traced, and others for the check


def check_formats(formats: Sequence[str]) -> None:
    """Check that the packages that the formats need are installed.

    Args:
        formats: Keys of ``FORMATS``.

    Raises:
        ConfigError: A package is missing.
    """
    if "onnx" not in formats:
        return
    for package in _PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"An ONNX export needs {', '.join(_PACKAGES)}, but importing {package} fails:"
                f' {error}. Install them: pip install -c constraints.txt -e ".[export]".'
            ) from error


def frame_size(cfg: CfgNode, video_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the frames of a video after the resizing of the test loader.

    Args:
        cfg: The config.
        video_size: (height, width) of the video in pixels.
    """
    height, width = video_size
    if cfg.INPUT.MIN_SIZE_TEST == 0:
        return video_size
    return transforms.ResizeShortestEdge.get_output_shape(
        height, width, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    )


def export_model(
    cfg: CfgNode,
    model: VideoMaskFormer,
    folder: str | Path,
    *,
    video_size: tuple[int, int] = (720, 1280),
    formats: Sequence[str] = tuple(FORMATS),
    categories: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write a model as a folder of graphs, with its config and a description.

    Args:
        cfg: The config of the model.
        model: On the CPU, with its weights.
        folder: The folder to write. After an error its files are as before.
        video_size: (height, width) of the videos that the model is for. Others are fitted in.
        formats: Keys of ``FORMATS``.
        categories: ``id`` and ``name`` of each class, in the order of the labels; none if they are
            unknown.

    Returns:
        The description, as in ``export.json``.

    Raises:
        ConfigError: A package is missing, or a head of the model cannot be exported.
        OSError: A file cannot be written.
        NumericError: A graph does not give what the model gives.
    """
    check_formats(formats)
    check_heads(model)
    model = model.eval()
    inner = frame_size(cfg, video_size)
    padded = model.frame_sizes(inner, inner).padded_size
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export", dir=target) as temporary, torch.no_grad():
        examples = [build_graphs(model, padded, count) for count in _FRAMES]
        graphs = {}
        with tqdm(total=len(examples[0]) * len(formats), unit="graph", desc="exporting") as bar:
            for same_graph in zip(*examples, strict=True):
                graphs[same_graph[0].name] = _write_graph(same_graph, Path(temporary), formats, bar)
        description = {
            **_describe(cfg, model, formats),
            "video_size": list(video_size),
            "frame_size": list(inner),
            "padded_size": list(padded),
            "categories": [dict(category) for category in categories],
            "graphs": graphs,
        }
        _move_files(Path(temporary), target, cfg, description)
    return description


def output_files(folder: str | Path, formats: Sequence[str] = tuple(FORMATS)) -> list[Path]:
    """All files that an export may write.

    Args:
        folder: Its folder.
        formats: Keys of ``FORMATS``.
    """
    graphs = [f"{name}{FORMATS[kind]}" for name in GRAPH_NAMES for kind in formats]
    return [Path(folder) / name for name in (*graphs, CONFIG_NAME, DESCRIPTION_NAME)]


def _move_files(
    temporary: Path, target: Path, cfg: CfgNode, description: Mapping[str, Any]
) -> None:
    """Replace an older export. The description comes last: without it no folder is an export."""
    alone = cfg.clone()
    alone.defrost()
    alone.MODEL.WEIGHTS, alone.INPUT.DATASETS = "", []
    alone.DATASETS.TRAIN = alone.DATASETS.TEST = ()
    alone.OUTPUT_DIR = "./output"
    (temporary / CONFIG_NAME).write_text(alone.dump(), encoding="utf-8")
    (target / DESCRIPTION_NAME).unlink(missing_ok=True)
    for path in sorted(temporary.iterdir()):
        move_into_place(path, target / path.name)
    write_json(description, target / DESCRIPTION_NAME, indent=2)


def _describe(cfg: CfgNode, model: VideoMaskFormer, formats: Sequence[str]) -> dict[str, Any]:
    """What a program needs to feed the graphs and to read their results."""
    packages = ("torch", *(_PACKAGES if "onnx" in formats else ()))
    window = cfg.TEST.WINDOW
    return {
        "format": 1,
        "channel_order": cfg.INPUT.FORMAT,
        "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
        "pixel_std": list(cfg.MODEL.PIXEL_STD),
        "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        "num_queries": cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES,
        "num_tracks": model.num_tracks,
        "window": {"size": window.SIZE, "stride": window.STRIDE, "mode": window.MODE},
        "opset": OPSET if "onnx" in formats else None,
        "versions": {
            "python": platform.python_version(),
            "maskfreevis_ext": __version__,
            **{package: version(package) for package in packages},
        },
    }


def _write_graph(
    examples: Sequence[Graph], folder: Path, formats: Sequence[str], bar: tqdm
) -> dict[str, Any]:
    """Write a graph in all formats and check it on all examples; returns its description."""
    graph = examples[0]
    bar.set_postfix_str(graph.name)
    # without this an axis could not have the length 1
    any_length = symbolic_shapes.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    with _quiet(), any_length:
        program = torch.export.export(
            graph.module, graph.example, dynamic_shapes=graph.dynamic_shapes()
        )
    files, errors = {}, {}
    outputs = list(graph.module(*graph.example))
    for kind in formats:
        path = folder / f"{graph.name}{FORMATS[kind]}"
        write, load = _WRITERS[kind]
        with _quiet():
            write(program, path, list(graph.inputs()), outputs)
            run = load(path)
        checked = [one for one in examples if kind == "onnx" or graph.fits(one)]
        files[kind], errors[kind] = path.name, _largest_error(run, checked, path.name)
        bar.update()
    return {
        "files": files,
        "inputs": graph.inputs(),
        "outputs": outputs,
        "largest_error": errors,
    }


def _write_torch(
    program: torch.export.ExportedProgram, path: Path, inputs: list[str], outputs: list[str]
) -> None:
    torch.export.save(program, path)


def _load_torch(path: Path) -> Callable[..., dict[str, Tensor]]:
    return torch.export.load(path).module()


def _write_onnx(
    program: torch.export.ExportedProgram, path: Path, inputs: list[str], outputs: list[str]
) -> None:
    torch.onnx.export(
        program,
        (),
        path,
        dynamo=True,
        opset_version=OPSET,
        external_data=False,
        input_names=inputs,
        output_names=outputs,
        verbose=False,
    )


_WRITERS = {"torch": (_write_torch, _load_torch), "onnx": (_write_onnx, OnnxGraph)}


def _largest_error(
    run: Callable[..., dict[str, Tensor]], examples: Sequence[Graph], name: str
) -> float:
    """Largest difference relative to max(1, |value|), over all outputs of all examples.

    Raises:
        NumericError: It is above ``TOLERANCE``, or not a number.
    """
    largest = 0.0
    for example in examples:
        got = run(*example.example)
        for output, value in example.module(*example.example).items():
            error = ((got[output] - value).abs() / value.abs().clamp(min=1)).max().item()
            if not error <= TOLERANCE:
                raise NumericError(
                    f"{name}: expected the output {output} of the model to within {TOLERANCE:g} of"
                    f" max(1, |value|), got a difference of {error:.2g} on noise. Nothing is"
                    " written."
                )
            largest = max(largest, error)
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the reports of the exporters, which are long and not for users."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
