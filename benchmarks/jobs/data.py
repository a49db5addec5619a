"""Reading and augmenting clips beside a step of the network: is the training ever starved?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import maskfreevis_ext  # noqa: F401  (chooses Detectron2 before anything imports it)

# isort: split
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from PIL import Image

from benchmarks.literal.data import literal_clip
from benchmarks.literal.step import total
from benchmarks.measure import Side, measure, median_seconds, no_result, progress
from benchmarks.options import QUICKSTART_CONFIG, Options
from benchmarks.report import Result
from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.loaders import build_train_loader
from maskfreevis_ext.data.mappers import YTVISDatasetMapper
from maskfreevis_ext.data.synthetic import SyntheticConfig, make_synthetic
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.engine.optimizer import build_optimizer

VIDEOS = 3
FRAMES = 8  # of each video
REDUCED_KEY = "INPUT.REDUCED_DECODING"


def run(options: Options) -> Result:
    """Measure the loading of clips.

    Raises:
        ConfigError: An option or a config key does not fit.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _run(options, Path(folder))


def _run(options: Options, folder: Path) -> Result:
    masks = SyntheticConfig(
        num_train=VIDEOS,
        num_val=0,
        num_frames=FRAMES,
        height=options.height,
        width=options.width,
        seed=options.seed,
        train_masks=True,
    )
    make_synthetic(str(folder / "videos"), masks)
    videos = load_ytvis_json(
        str(folder / "videos" / "instances_train_masks.json"),
        str(folder / "videos" / "train" / "JPEGImages"),
    )

    def config(*opts: str) -> CfgNode:
        return load_config(options.config_file, [*options.opts, *opts], options.device)

    cfg = config()
    clip = f"{cfg.INPUT.SAMPLING_FRAME_NUM} frames of {options.width} x {options.height}"
    kinds = {
        "ours, masks": ("INPUT.SUPERVISION", "mask"),
        "ours, boxes": ("INPUT.SUPERVISION", "box"),
        "ours, boxes, reduced decoding": ("INPUT.SUPERVISION", "box", REDUCED_KEY, "True"),
    }
    mappers = {
        name: YTVISDatasetMapper(config(*opts), is_train=True) for name, opts in kinds.items()
    }
    literal = _literal(mappers["ours, masks"], cfg)
    readers: dict[str, Callable[[dict[str, Any]], object]] = {"literal": literal, **mappers}
    sides = [
        Side(
            name,
            f"JPEG files, clips of {clip}",
            no_result(_all_clips(read, videos, options.seed)),
            (),
            "" if name == "literal" else "literal",
        )
        for name, read in readers.items()
    ]
    figures = measure(sides, options)
    per_run = len(videos) * cfg.INPUT.SAMPLING_FRAME_NUM
    notes = [f"{name}: {per_run / one.forward_s:.1f} frames/s" for name, one in figures.items()]
    details: dict[str, object] = {
        "frames_per_s": {name: per_run / one.forward_s for name, one in figures.items()},
        "decoding": decoding_differences(videos[0]["file_names"][0], options),
    }
    notes += [f"decoding: {name}: {text}" for name, text in _texts(details["decoding"])]
    starved = data_share(folder, options)
    notes.append(
        f"quickstart: waiting for data takes {starved['share']:.1%} of a step of "
        f"{starved['step_s'] * 1e3:.0f} ms ({starved['workers']:.0f} workers)"
    )
    return Result(sides, figures, {}, {**details, "quickstart": starved}, notes)


def _all_clips(
    read: Callable[[dict[str, Any]], object], videos: list[dict[str, Any]], seed: int
) -> Callable[[], None]:
    """A function that reads one clip of each video; always the same ones."""

    def call() -> None:
        np.random.seed(seed)
        for video in videos:
            read(video)

    return call


def _literal(mapper: YTVISDatasetMapper, cfg: CfgNode) -> Callable[[dict[str, Any]], object]:
    """Clips of the literal path, with the frames and transforms that the mapper would draw."""
    augmentation = mapper.augmentations["mask"]

    def read(video: dict[str, Any]) -> object:
        indices = mapper._choose_frames(video)
        blank = np.zeros((video["height"], video["width"], 3), dtype=np.uint8)
        _, transforms = augmentation([blank])
        return literal_clip(video, indices, transforms, cfg.INPUT.FORMAT)

    return read


def decoding_differences(path: str, options: Options) -> dict[str, dict[str, float]]:
    """Time and difference of decoding a JPEG file at a reduced size, then resizing it.

    Args:
        path: The file.
        options: The command line.

    Returns:
        Short side of the frame in pixels → ``full_s`` and ``reduced_s``, seconds; ``mean`` and
        ``largest``, absolute differences in grey levels (0..255); ``scale``, of the decoder.
    """

    def decode(size: tuple[int, int], reduce: bool) -> np.ndarray:
        with Image.open(path) as image:
            if reduce:
                image.draft("RGB", size)
            return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))

    with Image.open(path) as image:
        width, height = image.size
    found = {}
    for side in (360, 480):
        size = round(width * side / height), side
        if side >= height:
            continue
        with Image.open(path) as image:
            image.draft("RGB", size)
            scale = height / image.size[1]
        full, reduced = (decode(size, reduce).astype(float) for reduce in (False, True))
        times = [median_seconds(partial(decode, size, flag), options) for flag in (False, True)]
        found[str(side)] = {
            **{"full_s": times[0], "reduced_s": times[1], "scale": scale},
            **{"mean": float(abs(full - reduced).mean())},
            **{"largest": float(abs(full - reduced).max())},
        }
    return found


def _texts(decoding: Any) -> list[tuple[str, str]]:
    return [
        (
            f"short side {side}",
            f"full {one['full_s'] * 1e3:.1f} ms, reduced (1/{one['scale']:.0f}) "
            f"{one['reduced_s'] * 1e3:.1f} ms; differs by {one['mean']:.2f} grey levels on "
            f"average, {one['largest']:.0f} at most",
        )
        for side, one in decoding.items()
    ]


def data_share(folder: Path, options: Options) -> dict[str, float]:
    """How long steps of the quickstart wait for their batch.

    Args:
        folder: Where its data may be written.
        options: The command line; ``steps`` are measured, after one that is not.

    Returns:
        ``share`` of the time of a step, in [0, 1]; ``step_s`` and ``wait_s``, seconds; ``workers``.
    """
    data = folder / "quickstart"
    make_synthetic(str(data), SyntheticConfig(num_train=8, num_val=1))
    name = "benchmark_quickstart"
    entries = [[name, str(data / "train.json"), str(data / "train" / "JPEGImages")]]
    opts = ["INPUT.DATASETS", str(entries), "DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST", "()"]
    cfg = load_config(str(QUICKSTART_CONFIG), opts, options.device)
    batches = iter(build_train_loader(cfg))
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    wait = whole = 0.0
    for step in range(options.steps + 1):
        progress(f"quickstart: step {step}")
        start = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - start
        optimizer.zero_grad()
        total(model(batch)).backward()
        optimizer.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if step > 0:
            wait += waited
            whole += time.perf_counter() - start
    return {
        "share": wait / whole,
        "step_s": whole / options.steps,
        "wait_s": wait / options.steps,
        "workers": float(cfg.DATALOADER.NUM_WORKERS),
    }
