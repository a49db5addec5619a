"""Inference on videos of several lengths: time, latency and peak memory, windows and whole video.

Every measurement has a process of its own, since memory that was once used may stay with a process.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import maskfreevis_ext  # noqa: F401  (chooses Detectron2 before anything imports it)

# isort: split
from detectron2.modeling import build_model

from benchmarks.command_line import MALLOC_SETTINGS
from benchmarks.literal.inference import predict_whole_video
from benchmarks.literal.network import use_literal_network
from benchmarks.measure import Figures, Side, progress
from benchmarks.options import INFER_SIDES, Options
from benchmarks.phases import (
    REST,
    Phases,
    clock_of,
    count_flops,
    matrix_speed,
    medians,
    phase_table,
    speed_note,
    watched_parts,
)
from benchmarks.process_memory import PeakMemory
from benchmarks.report import Result
from maskfreevis_ext.config import load_config
from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.inference.video_model import VideoModel
from maskfreevis_ext.inference.window import WindowSettings, iterate_windows
from maskfreevis_ext.precision import AMP_DTYPES

LITERAL, WINDOWS, STREAM, FRAMES = INFER_SIDES

MOST_COUNTED = 32  #: frames of the longest videos whose operations are counted, in one more run

#: What each side does, for the report.
STARTS = {
    LITERAL: "uint8 frames; all at once through backbone (batch norm unfused), pixel decoder "
    "(grid_sample attention) and decoder (attention masks of every head), masks of all layers, all "
    "kept masks upsampled together, float32",
    WINDOWS: "uint8 frames, read when they are needed; result: the tracks, masks encoded (predict)",
    STREAM: "the same; result: each frame's masks, which are then dropped (stream)",
    FRAMES: "the same with windows of one frame",
}


@dataclass(frozen=True)
class Measured:
    """What one process measured.

    Attributes:
        seconds: Time of each round.
        cpu_seconds: Processor time of each round, of all threads; other programs change it little.
        latencies: Of the last round, seconds from reading the last frame of a window to its result;
            empty where the result comes at the end.
        peak_extra_bytes: Peak memory above that before the first round.
        start_bytes: Memory before the first round: program, libraries and model.
        phases: Seconds and operations of each part of the network, medians over the rounds.
    """

    seconds: list[float]
    cpu_seconds: list[float]
    latencies: list[float]
    peak_extra_bytes: int
    start_bytes: int
    phases: Phases


def run(options: Options) -> Result:
    """Measure inference.

    Raises:
        ConfigError: An option or a config key does not fit.
    """
    sides, figures, notes = [], {}, []
    details: dict[str, Any] = {}
    plan = _plan(options)
    speeds = _matrix_speeds(options)
    notes.append(speed_note(speeds))
    for kind, length, dtype in plan:
        suffix = "" if dtype == "float32" else f", {dtype}"
        name = f"{kind}{suffix}, T = {length}"
        progress(f"measuring: {name}")
        with _usual_allocator(), ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found = pool.submit(measure_side, kind, length, options.replace(dtype=dtype)).result()
        progress(f"{name}: {_describe(found, length)}")
        is_compared = kind == WINDOWS and (LITERAL, length, "float32") in plan
        sides.append(Side(name, STARTS[kind], lambda: None, (), _baseline(length, is_compared)))
        figures[name] = Figures(
            forward_s=statistics.median(found.seconds),
            forward_backward_s=None,
            peak_extra_bytes=found.peak_extra_bytes,
            samples_s=[(seconds, None) for seconds in found.seconds],
        )
        notes.append(f"{name}: {_describe(found, length)}")
        notes.append(phase_table(name, found.phases, speeds[dtype]))
        details[name] = asdict(found)
    return Result(
        sides, figures, {}, details, notes, memory_is="peak of the process above its start"
    )


def _plan(options: Options) -> list[tuple[str, int, str]]:
    """Kind, number of frames and type of each measurement."""
    plan = [(kind, length) for length in options.lengths for kind in (LITERAL, WINDOWS, STREAM)]
    plan += [(kind, length) for length in options.long for kind in (WINDOWS, STREAM)]
    plan += [(FRAMES, length) for length in options.lengths[:1]]
    types = dict.fromkeys(("float32", options.dtype))
    return [
        (kind, length, dtype)
        for kind, length in plan
        if kind in options.sides
        for dtype in types
        if dtype == "float32" or kind == WINDOWS
    ]


def _matrix_speeds(options: Options) -> dict[str, float]:
    device = torch.device(options.device)
    return {
        name: matrix_speed(device, AMP_DTYPES.get(name, torch.float32), options.clock)
        for name in dict.fromkeys(("float32", options.dtype))
    }


def _baseline(length: int, is_compared: bool) -> str:
    return f"{LITERAL}, T = {length}" if is_compared else ""


def _describe(found: Measured, length: int) -> str:
    seconds = statistics.median(found.seconds)
    text = (
        f"{length / seconds:.2f} frames/s, "
        f"{statistics.median(found.cpu_seconds) / length * 1e3:.0f} ms of processor time a frame, "
        f"peak {found.peak_extra_bytes / 2**20:.0f} MiB above "
        f"{found.start_bytes / 2**20:.0f} MiB"
    )
    if found.latencies:
        text += (
            f", latency {statistics.median(found.latencies) * 1e3:.0f} ms (median), "
            f"{max(found.latencies) * 1e3:.0f} ms (longest)"
        )
    return text


@contextmanager
def _usual_allocator() -> Iterator[None]:
    """Without the settings for steady timings, with which no freed memory returns to the system."""
    kept = {name: os.environ.pop(name) for name in MALLOC_SETTINGS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def measure_side(kind: str, length: int, options: Options) -> Measured:
    """Measure one kind of inference on one video, in this process.

    Args:
        kind: A key of ``STARTS``.
        length: Frames of the video.
        options: The command line.
    """
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    amp = [] if options.dtype == "float32" else ["TEST.AMP", options.dtype]
    opts = ["MODEL.WEIGHTS", "", *options.opts, *amp]
    cfg = load_config(options.config_file, opts, options.device)
    model = build_model(cfg).eval()
    if cfg.MODEL.WEIGHTS:
        SafeCheckpointer(model).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    settings = WindowSettings.from_config(cfg)
    infer = _inference(kind, model, settings, options)
    infer(make_video(options, min(length, settings.size + 1)))
    device = torch.device(options.device)
    memory = PeakMemory(device)
    seconds, cpu_seconds, latencies = [], [], []
    phases = []
    clock = clock_of(device, options.clock)
    for _ in range(options.rounds):
        start, cpu_start = clock(), time.process_time()
        spent: dict[str, float] = {}
        with watched_parts(model, clock, spent):
            latencies = infer(make_video(options, length))
        seconds.append(clock() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        phases.append({**spent, REST: seconds[-1] - sum(spent.values())})
    peak = memory.peak_extra()
    flops: dict[str, float] = {}
    if length <= MOST_COUNTED:

        def counted(read: Callable[[], float]) -> dict[str, float]:
            spent: dict[str, float] = {}
            with watched_parts(model, read, spent):
                infer(make_video(options, length))
            return spent

        model.requires_grad_(False)  # the counter would look for graphs
        flops = count_flops(counted)
    of_parts = Phases(medians(phases), flops)
    return Measured(seconds, cpu_seconds, latencies, peak, memory.start, of_parts)


def _inference(
    kind: str, model: nn.Module, settings: WindowSettings, options: Options
) -> Callable[[Iterator[Tensor]], list[float]]:
    """A function of the frames that gives the latencies."""
    if kind == LITERAL:
        use_literal_network(model)
        return partial(_literal, model, options)
    if kind == WINDOWS:
        return partial(_windows, model, settings, options)
    if kind == FRAMES:
        settings = replace(settings, size=1, stride=1)
    return partial(_stream, model, settings, options)


def _literal(model: Any, options: Options, frames: Iterator[Tensor]) -> list[float]:
    size = options.height, options.width
    predict_whole_video(model, torch.stack(list(frames)), size, model.num_tracks)
    return []


def _windows(
    model: nn.Module, settings: WindowSettings, options: Options, frames: Iterator[Tensor]
) -> list[float]:
    VideoModel(model, settings).predict_windows(frames, (options.height, options.width), "video")
    return []


def _stream(
    model: Any, settings: WindowSettings, options: Options, frames: Iterator[Tensor]
) -> list[float]:
    latencies = []
    read = 0.0

    def timed() -> Iterator[Tensor]:
        nonlocal read
        for frame in frames:
            read = time.perf_counter()
            yield frame

    for window in iterate_windows(model, timed(), (options.height, options.width), settings):
        for _ in window.frames():
            pass
        latencies.append(time.perf_counter() - read)
    return latencies


def make_video(options: Options, length: int) -> Iterator[Tensor]:
    """Frames (3, H, W) uint8 of squares that move over a smooth background, made one by one."""
    rng = np.random.RandomState(options.seed)
    height, width = options.height, options.width
    y, x = np.mgrid[0:height, 0:width]
    ground = np.stack([128 + 60 * np.sin(x / 31 + k) * np.cos(y / 23 - k) for k in range(3)])
    side = max(height // 5, 1)
    starts = rng.randint(0, (height - side, width - side), (5, 2))
    steps, colors = rng.randint(-3, 4, (5, 2)), rng.randint(0, 256, (5, 3, 1, 1))
    for t in range(length):
        frame = ground.astype(np.uint8)
        for start, step, color in zip(starts, steps, colors, strict=True):
            top, left = (start + t * step) % (height - side, width - side)
            frame[:, top : top + side, left : left + side] = color
        yield torch.from_numpy(frame)
