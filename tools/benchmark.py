#!/usr/bin/env python3
"""Measure time, memory and values of the losses side by side with a plain, literal implementation.

    python tools/benchmark.py criterion --json criterion.json

Subcommands: similarity, matcher, criterion, step (a whole train step) and deform_attn. The literal
side is tests/reference_impl, so a checkout of the repository is needed. Progress goes to stderr.

B clips, T frames, Q queries, D channels, N objects of a clip, (H, W) padded input, (h, w) map
of the masks at stride 4.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import maskfreevis_ext  # noqa: E402  (picks Detectron2 before anything imports it)

# isort: split
from detectron2.modeling import build_model  # noqa: E402
from detectron2.structures import Boxes, Instances  # noqa: E402

from maskfreevis_ext.config import load_config  # noqa: E402
from maskfreevis_ext.engine.user_errors import exit_on_user_error  # noqa: E402
from maskfreevis_ext.errors import ConfigError, DataError  # noqa: E402
from maskfreevis_ext.files import write_report  # noqa: E402
from maskfreevis_ext.modeling import criterion as criterion_module  # noqa: E402
from maskfreevis_ext.modeling import pixel_decoder as pixel_decoder_module  # noqa: E402
from maskfreevis_ext.modeling.box_losses import compute_affinities  # noqa: E402
from maskfreevis_ext.modeling.criterion import VideoSetCriterion  # noqa: E402
from maskfreevis_ext.ops.boxes import box_dice_cost, masks_to_boxes  # noqa: E402
from maskfreevis_ext.ops.deform_attn import multi_scale_deformable_attention  # noqa: E402
from maskfreevis_ext.ops.similarity import frame_pairs  # noqa: E402

try:
    from tests.reference_impl import criterion as literal
    from tests.reference_impl.deform_attn import grid_sample_attention
    from tests.reference_impl.matching import sampled_box_dice
    from tests.reference_impl.step import LiteralCriterion, total
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("tests"):
        raise
    sys.exit(
        f"error: {ROOT / 'tests' / 'reference_impl'}, the literal side of the benchmark, is not "
        f"there ({error}). Run tools/benchmark.py from a checkout of the repository."
    )

R50_CONFIG = ROOT / "configs" / "youtubevis_2019" / "maskfreevis_R50_bs16.yaml"
STRIDE = 4  # pixels per cell of the masks
SIZE_DIVISIBILITY = 32
GROWTH_FRAMES = (3, 5, 8)
SENSOR_NOISE = 2.0  # standard deviation of a pixel, of 255
ESTIMATES = 24  # sampled costs from which their standard error is taken

#: Config that switches the choices of the reference on, for values that can be compared.
REFERENCE_MODE = (
    *("MODEL.MASKFREE.LAB_CHANNEL_ORDER", "reversed", "MODEL.MASKFREE.LAB_QUANTIZE", "True"),
    *("MODEL.MASKFREE.MATCH_OUTSIDE", "True"),
    *("MODEL.MASKFREE.PROJECTION.EMPTY_FRAME_WEIGHT", "0.0"),
    *("MODEL.MASKFREE.TEMPORAL.NORM_PAIRS", "0", "MODEL.MASKFREE.TEMPORAL.WARMUP_ITERS", "0"),
)
DENSE_KEY = "MODEL.MASKFREE.DENSE_MASK_GRADIENTS"

#: Without these, memory that goes back to the system distorts short timings.
ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 40),
}
WAIT_POLICY = "OMP_WAIT_POLICY"  # --wait-policy


# ---------------------------------------------------------------------------------------- measuring


@dataclass
class Side:
    """One implementation of a job.

    ``forward`` gives what the backward pass starts from, or None where there is none. ``start``
    says what is given, ``baseline`` names the side that the ratios of this one refer to.
    """

    name: str
    start: str
    forward: Callable[[], Tensor | None]
    leaves: Sequence[Tensor] = ()
    baseline: str = ""

    def clear(self) -> None:
        """Forget the gradients of the run before."""
        for leaf in self.leaves:
            leaf.grad = None
        gc.collect()


@dataclass
class Figures:
    """What was measured of a side: medians and single samples in seconds, and bytes."""

    forward_s: float
    forward_backward_s: float | None
    peak_extra_bytes: int
    samples_s: list[tuple[float, float | None]]


def progress(text: str) -> None:
    """Say on stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_once(side: Side, device: torch.device) -> tuple[float, float | None]:
    """Seconds of a forward pass, and of that with its backward pass."""
    side.clear()
    synchronize(device)
    start = time.perf_counter()
    result = side.forward()
    synchronize(device)
    middle = time.perf_counter()
    if result is None:
        return middle - start, None
    result.backward()
    synchronize(device)
    return middle - start, time.perf_counter() - start


def median_seconds(function: Callable[[], object], args: argparse.Namespace) -> float:
    """Median time of a function that has no backward pass."""
    side = Side("", "", lambda: function() and None)
    device = torch.device(args.device)
    seconds = [time_once(side, device)[0] for _ in range(args.warmup + args.rounds)]
    return statistics.median(seconds[args.warmup :])


def peak_extra_memory(side: Side, device: torch.device) -> int:
    """Most bytes of tensors during forward and backward, above those at the start.

    On the CPU a running sum over the allocations that torch's profiler records; what libraries take
    outside PyTorch's allocator is not in it. On a GPU ``max_memory_allocated``.
    """
    side.clear()

    def run() -> None:
        result = side.forward()
        if result is not None:
            result.backward()

    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


def measure(sides: Sequence[Side], args: argparse.Namespace) -> dict[str, Figures]:
    """Medians over rounds in which the sides take turns, and the memory of each."""
    device = torch.device(args.device)
    samples: dict[str, list[tuple[float, float | None]]] = {side.name: [] for side in sides}
    for index in range(-args.warmup, args.rounds):
        # every other round runs backwards, so that no side always follows the same one
        for side in sides if index % 2 == 0 else reversed(sides):
            sample = time_once(side, device)
            progress(
                f"{'warm-up' if index < 0 else f'round {index + 1}'}: {side.name}: "
                f"{_seconds(sample[0])} forward, {_seconds(sample[1])} with backward"
            )
            if index >= 0:
                samples[side.name].append(sample)
    figures = {}
    for side in sides:
        forward, both = zip(*samples[side.name], strict=True)
        peak = peak_extra_memory(side, device)
        figures[side.name] = Figures(
            statistics.median(forward),
            None if None in both else statistics.median(both),
            peak,
            samples[side.name],
        )
        side.clear()
        progress(f"memory: {side.name}: {peak / 2**20:.1f} MiB")
    return figures


# ---------------------------------------------------------------------------------------- reporting


@dataclass
class Result:
    """What a subcommand found; ``differences`` are relative, ``details`` are for the JSON alone."""

    sides: Sequence[Side]
    figures: dict[str, Figures]
    differences: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def ratios(result: Result) -> dict[str, dict[str, float | None]]:
    """Baseline / side, for every side that has a baseline."""
    found = {}
    for side in result.sides:
        if not side.baseline:
            continue
        own, base = result.figures[side.name], result.figures[side.baseline]
        both = None
        if own.forward_backward_s is not None and base.forward_backward_s is not None:
            both = base.forward_backward_s / own.forward_backward_s
        found[side.name] = {
            "baseline": side.baseline,
            "forward": base.forward_s / own.forward_s,
            "forward_backward": both,
            "memory": base.peak_extra_bytes / max(own.peak_extra_bytes, 1),
        }
    return found


def as_json(result: Result, args: argparse.Namespace) -> dict[str, Any]:
    """Everything that was found, in types of JSON."""
    settings = {k: v for k, v in vars(args).items() if k not in ("function", "json")}
    return {
        "command": args.command,
        "settings": settings,
        "environment": describe_environment(args),
        "sides": {
            side.name: {"starts_from": side.start, **vars(result.figures[side.name])}
            for side in result.sides
        },
        "ratios": ratios(result),
        "differences": result.differences,
        "largest_difference": max(result.differences.values(), default=None),
        "details": result.details,
    }


def describe_environment(args: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    is_cuda = torch.device(args.device).type == "cuda"
    return {
        "torch": torch.__version__,
        "detectron2": maskfreevis_ext.describe_provider(),
        "device": torch.cuda.get_device_name() if is_cuda else "cpu",
        "threads": torch.get_num_threads(),
        "memory_is": "torch.cuda.max_memory_allocated above the start"
        if is_cuda
        else "running peak of the allocations of tensors (torch profiler) above the start",
        "variables": {name: os.environ.get(name) for name in (*ENVIRONMENT, WAIT_POLICY)},
    }


def print_report(report: dict[str, Any], notes: Iterable[str]) -> None:
    """Tables for people."""
    environment = report["environment"]
    print(
        f"\n{report['command']} on {environment['device']}, {environment['threads']} threads, "
        f"torch {environment['torch']}"
    )
    print(f"peak memory: {environment['memory_is']}")
    for name, value in environment["variables"].items():
        print(f"{name}={value if value is not None else '(not set)'}, for both sides")
    rows = [("", "forward", "with backward", "peak extra", "x faster", "x leaner")]
    for name, side in report["sides"].items():
        ratio = report["ratios"].get(name, {})
        speed = ratio.get("forward_backward") or ratio.get("forward")
        rows.append(
            (
                name,
                _seconds(side["forward_s"]),
                _seconds(side["forward_backward_s"]),
                f"{side['peak_extra_bytes'] / 2**20:.1f} MiB",
                f"{speed:.2f}" if speed else "",
                f"{ratio['memory']:.2f}" if ratio else "",
            )
        )
    print()
    print_table(rows)
    print()
    for name, side in report["sides"].items():
        print(f"{name} starts from {side['starts_from']}")
    if report["differences"]:
        print("\nlargest relative difference of")
        worst = {}
        for name, value in report["differences"].items():
            term = name.rstrip("0123456789").removesuffix("_")
            worst[term] = max(worst.get(term, 0.0), value)
        print_table([("  " + term, f"{value:.1e}") for term, value in worst.items()])
    for note in notes:
        print(note)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns of equal width, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f} s" if value >= 1 else f"{value * 1e3:.2f} ms"


def relative_difference(value: Tensor, expected: Tensor) -> float:
    """|a - b| / |b| in the Euclidean norm, in float64."""
    value, expected = value.detach().double(), expected.detach().double()
    return float((value - expected).norm() / expected.norm().clamp(min=1e-12))


# ---------------------------------------------------------------------------------------- the scene


@dataclass
class Scene:
    """Clips with moving objects.

    ``images`` (B, T, 3, H', W') uint8 without padding, ``frames`` (B, T, 3, H, W) float32 with
    zeros as padding, ``masks`` (B, N, T, H, W) bool, ``targets`` as the criterion takes them.
    """

    images: Tensor
    frames: Tensor
    masks: Tensor
    targets: list[dict[str, Tensor]]

    @property
    def frame_sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each clip without padding."""
        return [tuple(self.images.shape[-2:])] * len(self.images)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.frames.shape[-2], self.frames.shape[-1]

    @property
    def literal_targets(self) -> list[dict[str, Tensor]]:
        """The same targets with masks, of which the literal side takes the boxes."""
        return [
            {**target, "masks": masks}
            for target, masks in zip(self.targets, self.masks, strict=True)
        ]


def smooth_noise(channels: int, size: Sequence[int], cell: Sequence[float]) -> Tensor:
    """Noise (channels, *size) that changes over about ``cell`` positions along each axis."""
    grid = [max(math.ceil(length / step), 1) + 2 for length, step in zip(size, cell, strict=True)]
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    padded = [
        math.ceil(length * count / (count - 2)) for length, count in zip(size, grid, strict=True)
    ]
    noise = F.interpolate(torch.randn(1, channels, *grid), padded, mode=mode, align_corners=False)
    return noise[(0, slice(None), *(slice(length) for length in size))]


def texture(height: int, width: int, contrast: float) -> Tensor:
    """A colour with shading and some structure, (3, height, width)."""
    color = 60 + 130 * torch.rand(3, 1, 1)
    shading = contrast * smooth_noise(3, (height, width), (90, 90))
    return color + shading + 0.3 * contrast * smooth_noise(1, (height, width), (14, 14))


def object_masks(args: argparse.Namespace) -> Tensor:
    """Rectangles and ellipses of varied size that move, (N, T, H', W') bool.

    With three objects or more the last one is absent from the last frame.
    """
    y = (torch.arange(args.height) + 0.5)[:, None] / args.height
    x = (torch.arange(args.width) + 0.5)[None] / args.width
    masks = torch.zeros(args.objects, args.frames, args.height, args.width, dtype=torch.bool)
    for n in range(args.objects):
        # half sizes from 0.3 to 0.06 of the frame, the small ones in front
        scale = (args.objects - n - torch.rand(1)) / args.objects
        radius_y, radius_x = (0.06 + 0.24 * scale * (0.7 + 0.3 * torch.rand(2))).tolist()
        center_y, center_x = (0.25 + 0.5 * torch.rand(2)).tolist()
        speed_y, speed_x = (0.02 * torch.randn(2)).clamp(-0.03, 0.03).tolist()
        for t in range(args.frames):
            dy = (y - center_y - speed_y * t) / radius_y
            dx = (x - center_x - speed_x * t) / radius_x
            inside = (dy.abs() <= 1) & (dx.abs() <= 1) if n % 2 else dy.square() + dx.square() <= 1
            masks[n, t] = inside
    if args.objects >= 3:
        masks[-1, -1] = False
    return masks


def paint_clip(masks: Tensor) -> Tensor:
    """Textured objects before a slowly panning background, (T, 3, H', W') uint8."""
    num_frames, height, width = masks.shape[1:]
    pan_y, pan_x = 2, 3  # pixels per frame; no whole cells, so that patches do not repeat exactly
    background = texture(height + pan_y * num_frames, width + pan_x * num_frames, 16.0)
    frames = torch.stack(
        [background[:, pan_y * t :, pan_x * t :][:, :height, :width] for t in range(num_frames)]
    )
    for tube in masks:
        surface = texture(height, width, 12.0)
        first = None
        for t, mask in enumerate(tube):
            if not mask.any():
                continue
            center = mask.nonzero().float().mean(0).round().int()
            first = center if first is None else first
            moved = surface.roll((center - first).tolist(), dims=(1, 2))
            frames[t] = torch.where(mask, moved, frames[t])
    # brighter than the padding, which is black
    return (frames + SENSOR_NOISE * torch.randn_like(frames)).clamp(16, 255).round().to(torch.uint8)


def make_scene(args: argparse.Namespace) -> Scene:
    """A batch from the seed."""
    torch.manual_seed(args.seed)
    padding = (0, -args.width % SIZE_DIVISIBILITY, 0, -args.height % SIZE_DIVISIBILITY)
    masks = [object_masks(args) for _ in range(args.batch)]
    images = torch.stack([paint_clip(of_clip) for of_clip in masks]).to(args.device)
    padded = F.pad(torch.stack(masks), padding).to(args.device)
    is_present = padded.flatten(3).any(-1)
    targets = []
    for of_clip, present in zip(padded, is_present, strict=True):
        ids = torch.arange(len(of_clip), device=args.device)[:, None].where(present, -1)
        targets.append(
            {
                "labels": torch.randint(0, args.classes, (len(of_clip),)).to(args.device),
                "ids": ids,
                "boxes": masks_to_boxes(of_clip),
                "has_mask": torch.zeros(len(of_clip), dtype=torch.bool, device=args.device),
            }
        )
    return Scene(images, F.pad(images.float(), padding), padded, targets)


def pairs_of(args: argparse.Namespace) -> list[tuple[int, int]]:
    """Frame pairs of the temporal term."""
    return frame_pairs(args.pairs, args.frames)


def pass_rates(scene: Scene, pairs: list[tuple[int, int]]) -> dict[str, float]:
    """Shares of the candidates inside the boxes that are edges and matches of the reference.

    ``box_area`` is the share of the padded frame that the box of an object covers, on average.
    """
    spatial, temporal = literal.similarities(scene.frames, pairs)
    inside = F.avg_pool2d(literal.box_maps(scene.masks).amax(1), STRIDE) >= 0.5  # (B, T, h, w)
    edges = (spatial >= 0.3).float().mean(2)
    rates = {"edges": float(edges[inside].mean())}
    kept = []
    for (_, second), similarity in zip(pairs, temporal, strict=True):
        values = similarity.topk(min(5, similarity.shape[1]), dim=1).values
        share = (values >= 0.05).float().sum(1) / similarity.shape[1]
        kept.append(share[inside[:, second]])
    if kept:
        rates["matches"] = float(torch.cat(kept).mean())
    rates["box_area"] = float(literal.box_maps(scene.masks).mean())
    return rates


def note_pass_rates(rates: dict[str, float]) -> str:
    """A line for people."""
    shares = [f"{rates[name]:.1%} of the {name}" for name in ("edges", "matches") if name in rates]
    return (
        f"inside the boxes {' and '.join(shares)} that are possible pass the thresholds; "
        f"a box covers {rates['box_area']:.1%} of the frame on average"
    )


# -------------------------------------------------------------------------------------- predictions


@dataclass
class Predictions:
    """What a video decoder would give; L outputs, the last one first.

    ``logits`` L x (B, Q, C+1), ``embeddings`` L x (B, Q, D), ``features`` (B, D, T, h, w),
    ``masks`` L x (B, Q, T, h, w): views of one product, as in the decoder.
    """

    logits: list[Tensor]
    embeddings: list[Tensor]
    features: Tensor
    masks: list[Tensor]


def mask_product(embeddings: Sequence[Tensor], features: Tensor) -> list[Tensor]:
    """Mask logits of all outputs by one product, L x (B, Q, T, h, w)."""
    masks = torch.bmm(torch.cat(list(embeddings), dim=1), features.flatten(2))
    return list(masks.unflatten(2, features.shape[2:]).chunk(len(embeddings), dim=1))


def make_predictions(args: argparse.Namespace, scene: Scene) -> Predictions:
    """Smooth mask logits: N queries near the objects, the later the better, and blobs otherwise."""
    num_objects = scene.masks.shape[1]
    num_noise = args.mask_dim - num_objects - 1
    if num_noise < 1:
        raise ConfigError(
            f"--mask-dim: expected at least --objects + 2 = {num_objects + 2}, got {args.mask_dim}"
        )
    soft = F.avg_pool2d(scene.masks.float().flatten(0, 2)[:, None], STRIDE)
    soft = F.avg_pool2d(soft, 5, stride=1, padding=2)  # soft edges
    soft = soft.unflatten(0, scene.masks.shape[:3])[:, :, :, 0]
    size = soft.shape[2:]
    noise = torch.stack([smooth_noise(num_noise, size, (2, 9, 9)) for _ in range(args.batch)])
    features = torch.cat([2 * soft - 1, torch.ones_like(soft[:, :1]), noise.to(soft)], dim=1)
    of_object = torch.stack([torch.randperm(args.queries) for _ in range(args.batch)])
    logits, embeddings = [], []
    for layer in range(args.layers):
        quality = 1.0 if layer == 0 else layer / args.layers
        embedding = torch.randn(args.batch, args.queries, args.mask_dim) * 3 / num_noise**0.5
        embedding[..., :num_objects] = 0
        embedding[..., num_objects] = -3
        scores = torch.randn(args.batch, args.queries, args.classes + 1)
        for clip, target in enumerate(scene.targets):
            for n, query in enumerate(of_object[clip, :num_objects]):
                embedding[clip, query, n] = 1 + 5 * quality
                embedding[clip, query, num_objects] = -1
                scores[clip, query, target["labels"][n]] += 3 * quality
        logits.append(scores.to(args.device))
        embeddings.append(embedding.to(args.device))
    return Predictions(logits, embeddings, features, mask_product(embeddings, features))


@dataclass
class Start:
    """Outputs for a criterion, and the leaf tensors that get gradients."""

    outputs: dict[str, Any]
    leaves: list[Tensor]


def _leaves(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def _outputs(layers: list[dict[str, Tensor]], **more: Tensor) -> dict[str, Any]:
    return {**layers[0], "aux_outputs": layers[1:], **more}


def dense_start(predictions: Predictions) -> Start:
    """Class logits and the masks of all queries as leaves."""
    logits, masks = _leaves(predictions.logits), _leaves(predictions.masks)
    layers = [
        {"pred_logits": of_layer, "pred_masks": mask}
        for of_layer, mask in zip(logits, masks, strict=True)
    ]
    return Start(_outputs(layers), [*logits, *masks])


def embedded_start(predictions: Predictions) -> Start:
    """Class logits, mask embeddings and mask features as leaves; the masks have no graph."""
    logits, embeddings = _leaves(predictions.logits), _leaves(predictions.embeddings)
    (features,) = _leaves([predictions.features])
    layers = [
        {"pred_logits": of_layer, "pred_masks": mask, "mask_embed": embedding}
        for of_layer, mask, embedding in zip(logits, predictions.masks, embeddings, strict=True)
    ]
    return Start(_outputs(layers, mask_features=features), [*logits, *embeddings, features])


def build_criterion(args: argparse.Namespace, *opts: str) -> VideoSetCriterion:
    """Our criterion at the sizes of the command line."""
    cfg = load_config(
        str(R50_CONFIG),
        [
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(args.classes)),
            *("MODEL.MASK_FORMER.TRAIN_NUM_POINTS", str(args.points)),
            *("MODEL.MASKFREE.TEMPORAL.PAIRS", args.pairs, "SOLVER.AMP.ENABLED", "False"),
            *opts,
        ],
        args.device,
    )
    return VideoSetCriterion.from_config(cfg).to(args.device).train()


def layers_of(outputs: dict[str, Any]) -> list[dict[str, Tensor]]:
    """All outputs in a list, the last one first."""
    return [outputs, *outputs.get("aux_outputs", [])]


def loss_differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    """Relative difference of every loss that the literal side has.

    Raises:
        DataError: A loss is missing, or not finite.
    """
    differences = {}
    for name, expected in theirs.items():
        if name not in ours or not bool(torch.isfinite(ours[name]) & torch.isfinite(expected)):
            raise DataError(
                f"{name}: expected finite values of both sides, got {ours.get(name)} and {expected}"
            )
        differences[name] = relative_difference(ours[name], expected)
    return differences


def compare_values(
    args: argparse.Namespace, scene: Scene, predictions: Predictions
) -> tuple[dict[str, float], dict[str, float]]:
    """Differences of the losses and of the gradients with shared matches, ours in reference mode.

    Returns:
        For each loss, and for the gradients of ``logits``, ``masks`` and ``features``.
    """
    criterion = build_criterion(args, *REFERENCE_MODE)
    criterion.weights = dict.fromkeys(criterion.weights, 1.0)
    ours, theirs = dense_start(predictions), dense_start(predictions)
    matches = criterion.matcher(layers_of(ours.outputs), scene.targets, scene.image_size)
    expected = literal.literal_losses(
        theirs.outputs, scene.literal_targets, scene.frames, pairs_of(args), matches=matches
    )
    total(expected).backward()
    arguments = scene.targets, scene.frames, scene.frame_sizes, matches
    losses = criterion(ours.outputs, *arguments)
    differences = loss_differences(losses, expected)
    total(losses).backward()
    count = args.layers

    def flat(tensors: Iterable[Tensor]) -> Tensor:
        return torch.cat([tensor.grad.flatten() for tensor in tensors])

    gradients = {
        "logits": relative_difference(flat(ours.leaves[:count]), flat(theirs.leaves[:count])),
        "masks": relative_difference(flat(ours.leaves[count:]), flat(theirs.leaves[count:])),
    }
    lean = embedded_start(predictions)
    total(criterion(lean.outputs, *arguments)).backward()
    dense = torch.cat([mask.grad for mask in theirs.leaves[count:]], dim=1).flatten(2)
    wanted = torch.cat(predictions.embeddings, dim=1).transpose(1, 2) @ dense
    gradients["features"] = relative_difference(lean.leaves[-1].grad.flatten(2), wanted)
    return differences, gradients


# -------------------------------------------------------------------------------------- subcommands


def run_similarity(args: argparse.Namespace) -> Result:
    """Lab, colour edges and patch matches of a whole batch."""
    scene = make_scene(args)
    settings = build_criterion(args).box_settings
    pairs = pairs_of(args)

    def of_frames(frames: Tensor, settings: Any = settings) -> None:
        compute_affinities(frames, scene.frame_sizes, STRIDE, settings)

    def literal_forward() -> None:
        literal.similarities(scene.frames, pairs)

    start = "padded frames"
    sides = [
        Side("literal", start, torch.no_grad()(literal_forward)),
        Side("ours", start, lambda: of_frames(scene.frames), baseline="literal"),
    ]
    figures = measure(sides, args)
    one_layer = _with(args, layers=1)
    differences, _ = compare_values(one_layer, scene, make_predictions(one_layer, scene))
    rates = pass_rates(scene, pairs)
    growth, in_criterion = _growth(args), _affinities_of_step(args)
    notes = [note_pass_rates(rates), "the differences are those of the losses made from it", ""]
    notes += [
        f"ours at T={row['frames']} (cycle): {_seconds(row['seconds'])}, "
        f"{_seconds(row['seconds_per_frame'])} per frame"
        for row in growth
    ]
    notes += [
        f"criterion with {row['layers']} outputs and {row['objects']} objects per clip: "
        f"{row['calls']} call, {_seconds(row['seconds'])}"
        for row in in_criterion
    ]
    details = {"pass_rates": rates, "growth": growth, "in_criterion": in_criterion}
    return Result(sides, figures, differences, details, notes)


def _with(args: argparse.Namespace, **changes: object) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(args), **changes})


def _growth(args: argparse.Namespace) -> list[dict[str, float]]:
    """Median time of ours by T, with a cycle of T pairs."""
    long = _with(args, frames=max(GROWTH_FRAMES), pairs="cycle")
    scene, settings = make_scene(long), build_criterion(long).box_settings
    rows = []
    for num_frames in GROWTH_FRAMES:
        frames = scene.frames[:, :num_frames].contiguous()
        median = median_seconds(
            lambda f=frames: compute_affinities(f, scene.frame_sizes, STRIDE, settings), args
        )
        rows.append(
            {"frames": num_frames, "seconds": median, "seconds_per_frame": median / num_frames}
        )
    return rows


def _affinities_of_step(args: argparse.Namespace) -> list[dict[str, float]]:
    """Calls of ``compute_affinities`` and their time in one step, small and large."""
    rows = []
    for layers, objects in ((1, 1), (args.layers, args.objects)):
        sized = _with(args, layers=layers, objects=objects)
        scene, criterion = make_scene(sized), build_criterion(sized)
        outputs = dense_start(make_predictions(sized, scene)).outputs
        seconds: list[float] = []

        def timed(*values: Any, seconds: list[float] = seconds, **named: Any) -> Any:
            synchronize(torch.device(args.device))
            start = time.perf_counter()
            result = compute_affinities(*values, **named)
            synchronize(torch.device(args.device))
            seconds.append(time.perf_counter() - start)
            return result

        calls = []
        with mock.patch.object(criterion_module, "compute_affinities", timed), torch.no_grad():
            for _ in range(args.warmup + args.rounds):
                before = len(seconds)
                criterion(outputs, scene.targets, scene.frames, scene.frame_sizes)
                calls.append(len(seconds) - before)
        rows.append(
            {
                "layers": layers,
                "objects": objects,
                "calls": calls[-1],
                "seconds": statistics.median(seconds[args.warmup :]) if seconds else 0.0,
            }
        )
    return rows


def run_matcher(args: argparse.Namespace) -> Result:
    """Assignment of queries to objects for all outputs and clips."""
    scene = make_scene(args)
    predictions = make_predictions(args, scene)
    matcher = build_criterion(args).matcher
    layers = [
        {"pred_logits": logits, "pred_masks": masks}
        for logits, masks in zip(predictions.logits, predictions.masks, strict=True)
    ]

    def ours() -> list:
        return matcher(layers, scene.targets, scene.image_size)

    def theirs() -> list:
        return [
            [
                literal.match(
                    layer["pred_logits"][clip],
                    layer["pred_masks"][clip],
                    target["labels"],
                    literal.box_maps(target["masks"]),
                    torch.rand(args.points, 2, device=args.device),
                )
                for clip, target in enumerate(scene.literal_targets)
            ]
            for layer in layers
        ]

    def without_result(function: Callable[[], object]) -> Callable[[], None]:
        return lambda: function() and None

    start = "class and mask logits of all queries and outputs"
    sides = [
        Side("literal", f"{start}, masks of the objects", without_result(theirs)),
        Side("ours", f"{start}, boxes of the objects", without_result(ours), baseline="literal"),
    ]
    figures = measure(sides, args)
    agreement = _agreement(ours(), theirs())
    errors = _standard_errors(args, predictions.masks[0][0], scene)
    notes = [
        f"{agreement:.1%} of the objects get the same query",
        f"closed form and one estimate at {args.points} points: {errors['share_within_3']:.1%} "
        f"within 3 standard errors, RMS {errors['rms']:.2f}",
        f"closed form and the mean of {ESTIMATES} estimates: at most "
        f"{errors['largest_of_mean']:.2f} standard errors of the mean",
    ]
    details = {"agreement": agreement, "standard_errors": errors}
    return Result(sides, figures, {}, details, notes)


def _agreement(ours: list, theirs: list) -> float:
    """Share of the objects of all outputs and clips that both sides give to the same query."""
    same = count = 0
    for of_layer, expected in zip(ours, theirs, strict=True):
        for match, other in zip(of_layer, expected, strict=True):
            first, second = (
                dict(zip(objects.tolist(), queries.tolist(), strict=True))
                for queries, objects in (match, other)
            )
            same += sum(second.get(n) == query for n, query in first.items())
            count += len(first)
    return same / max(count, 1)


def _standard_errors(
    args: argparse.Namespace, mask_logits: Tensor, scene: Scene
) -> dict[str, float]:
    """How far the closed Dice cost of the first clip lies from sampled ones, on the CPU."""
    boxes = scene.targets[0]["boxes"].cpu()
    predicted = masks_to_boxes(mask_logits.cpu() > 0)
    closed = box_dice_cost(predicted, boxes, scene.image_size, STRIDE, args.points)
    estimates = torch.stack(
        [
            sampled_box_dice(predicted, boxes, scene.image_size, STRIDE, torch.rand(args.points, 2))
            for _ in range(ESTIMATES)
        ]
    ).double()
    error = estimates.std(0).clamp(min=1e-7)
    single = (estimates - closed) / error
    mean = (estimates.mean(0) - closed) / (error / ESTIMATES**0.5)
    return {
        "share_within_3": float((single.abs() <= 3).double().mean()),
        "rms": float(single.square().mean().sqrt()),
        "largest_of_mean": float(mean.abs().max()),
    }


def run_criterion(args: argparse.Namespace) -> Result:
    """All losses, with similarity and matching."""
    scene = make_scene(args)
    predictions = make_predictions(args, scene)
    criterion, pairs = build_criterion(args), pairs_of(args)

    def ours(outputs: dict[str, Any]) -> Tensor:
        return total(criterion(outputs, scene.targets, scene.frames, scene.frame_sizes))

    def theirs(outputs: dict[str, Any]) -> Tensor:
        targets = scene.literal_targets
        return total(literal.literal_losses(outputs, targets, scene.frames, pairs, args.points))

    dense, lean = dense_start(predictions), embedded_start(predictions)
    given = "class logits and dense mask logits of all queries, all with gradients"
    lean_given = (
        "class logits, mask embeddings and mask features with gradients, mask logits without"
    )
    sides = [
        Side("literal", given, lambda: theirs(dense.outputs), dense.leaves),
        Side("ours", lean_given, lambda: ours(lean.outputs), lean.leaves, "literal"),
        Side("ours, dense", given, lambda: ours(dense.outputs), dense.leaves, "literal"),
    ]
    if args.with_product:
        sides += _sides_with_product(predictions, ours, theirs)
    figures = measure(sides, args)
    differences, gradients = compare_values(args, scene, predictions)
    rates = pass_rates(scene, pairs)
    notes = [
        "gradients differ by "
        + ", ".join(f"{value:.1e} ({name})" for name, value in gradients.items()),
        note_pass_rates(rates),
    ]
    details = {"pass_rates": rates, "gradient_differences": gradients}
    return Result(sides, figures, differences, details, notes)


def _sides_with_product(
    predictions: Predictions,
    ours: Callable[[dict[str, Any]], Tensor],
    theirs: Callable[[dict[str, Any]], Tensor],
) -> list[Side]:
    """Both sides from embeddings and features, with the product that makes the mask logits."""
    start = embedded_start(predictions)
    count = len(predictions.logits)
    logits, embeddings, features = (
        start.leaves[:count],
        start.leaves[count : 2 * count],
        start.leaves[-1],
    )

    def literal_forward() -> Tensor:
        masks = mask_product(embeddings, features)
        layers = [
            {"pred_logits": of_layer, "pred_masks": mask}
            for of_layer, mask in zip(logits, masks, strict=True)
        ]
        return theirs(_outputs(layers))

    def our_forward() -> Tensor:
        with torch.no_grad():
            masks = mask_product(embeddings, features)
        layers = [
            {**layer, "pred_masks": mask}
            for layer, mask in zip(layers_of(start.outputs), masks, strict=True)
        ]
        return ours({**start.outputs, **_outputs(layers)})

    given = "class logits, mask embeddings and mask features, the product of the two included"
    name = "literal with product"
    return [
        Side(name, given, literal_forward, start.leaves),
        Side("ours with product", given, our_forward, start.leaves, name),
    ]


def run_step(args: argparse.Namespace) -> Result:
    """Forward and backward of the whole model."""
    opts = [
        *("MODEL.WEIGHTS", "", "SOLVER.AMP.ENABLED", "False"),
        *("MODEL.MASKFREE.TEMPORAL.PAIRS", args.pairs, *args.opts),
    ]
    cfg = load_config(args.config_file, opts, args.device)
    scene = make_scene(_with(args, classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES))
    batch = as_batch(scene)
    dense_cfg = load_config(args.config_file, [*opts, DENSE_KEY, "True"], args.device)
    model, literal_model = _models(cfg, dense_cfg)
    literal_model.criterion = LiteralCriterion(
        model.criterion.weights, pairs_of(args), cfg.MODEL.MASK_FORMER.TRAIN_NUM_POINTS
    )

    def ours() -> Tensor:
        return total(model(batch))

    def theirs() -> Tensor:
        with grid_sample_pixel_decoder():
            return total(literal_model(batch))

    sides = [
        Side(
            "literal",
            "uint8 frames; literal criterion, dense mask gradients, grid_sample attention",
            theirs,
            list(literal_model.parameters()),
        ),
        Side("ours", "uint8 frames", ours, list(model.parameters()), "literal"),
    ]
    if args.multimask:
        head_cfg = load_config(
            args.config_file, [*opts, "MODEL.MULTIMASK.ENABLED", "True"], args.device
        )
        with_head = build_model(head_cfg).train()
        sides.append(
            Side(
                "ours, multimask",
                "uint8 frames; with the multimask head",
                lambda: total(with_head(batch)),
                list(with_head.parameters()),
                "ours",
            )
        )
    with captured_call(model.criterion) as our_call:
        ours()
    with captured_call(literal_model.criterion) as their_call:
        theirs()
    assert their_call.outputs["pred_masks"].requires_grad, f"{DENSE_KEY} has no effect"
    sides += [
        _criterion_alone("literal criterion", literal_model.criterion, their_call),
        _criterion_alone("our criterion", model.criterion, our_call, "literal criterion"),
    ]
    figures = measure(sides, args)
    shares = {
        name: figures[part].forward_backward_s / figures[name].forward_backward_s
        for name, part in (("literal", "literal criterion"), ("ours", "our criterion"))
    }
    held = sum(parameter.nbytes for parameter in model.parameters())
    with_held = {name: figures[name].peak_extra_bytes + held for name in ("literal", "ours")}
    differences = _step_differences(args, opts, our_call, literal_model, theirs)
    rates = pass_rates(scene, pairs_of(args))
    notes = [
        f"the criterion takes {share:.1%} of the step ({name})" for name, share in shares.items()
    ]
    notes += [
        f"either side also holds parameters of {held / 2**20:.1f} MiB; with them ours takes "
        f"{with_held['ours'] / with_held['literal']:.2f} of the memory of the literal step",
        note_pass_rates(rates),
    ]
    details = {
        "criterion_share": shares,
        "parameter_bytes": held,
        "memory_share_with_parameters": with_held["ours"] / with_held["literal"],
        "pass_rates": rates,
    }
    return Result(sides, figures, differences, details, notes)


def as_batch(scene: Scene) -> list[dict[str, Any]]:
    """The scene as the data mappers give it."""
    height, width = scene.images.shape[-2:]
    batch = []
    for clip, (images, target) in enumerate(zip(scene.images, scene.targets, strict=True)):
        instances = []
        for t in range(len(images)):
            frame = Instances((height, width))
            frame.gt_classes = target["labels"]
            frame.gt_ids = target["ids"][:, t]
            frame.gt_boxes = Boxes(target["boxes"][:, t])
            instances.append(frame)
        batch.append(
            {
                "image": list(images),
                "instances": instances,
                "supervision": "box",
                "height": height,
                "width": width,
                "video_id": clip,
                "file_names": [f"{clip}/{t}.jpg" for t in range(len(images))],
                "frame_indices": list(range(len(images))),
            }
        )
    return batch


def _models(cfg: Any, dense_cfg: Any) -> tuple[nn.Module, nn.Module]:
    """The model of each config, with the same random weights."""
    model, dense_model = build_model(cfg).train(), build_model(dense_cfg).train()
    dense_model.load_state_dict(model.state_dict())
    return model, dense_model


@contextlib.contextmanager
def grid_sample_pixel_decoder() -> Iterator[None]:
    """Deformable attention by ``grid_sample`` in every pixel decoder."""
    name = multi_scale_deformable_attention.__name__
    with mock.patch.object(pixel_decoder_module, name, grid_sample_attention):
        yield


@dataclass
class Call:
    """What a criterion got, cut from its graph; ``leaves`` are the tensors that had one."""

    outputs: dict[str, Any] = field(default_factory=dict)
    leaves: list[Tensor] = field(default_factory=list)
    targets: list[dict[str, Tensor]] = field(default_factory=list)
    named: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def captured_call(criterion: nn.Module) -> Iterator[Call]:
    """Fills a ``Call`` with what the criterion gets."""
    call = Call()

    def keep(_: nn.Module, values: tuple, named: dict[str, Any]) -> None:
        call.outputs = _detached(values[0], call.leaves)
        call.targets, call.named = values[1], named

    handle = criterion.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield call
    finally:
        handle.remove()


def _detached(value: Any, leaves: list[Tensor]) -> Any:
    """The same structure with tensors cut from their graph; ``leaves`` takes those that had one."""
    if isinstance(value, dict):
        return {key: _detached(item, leaves) for key, item in value.items()}
    if isinstance(value, list):
        return [_detached(item, leaves) for item in value]
    if isinstance(value, Tensor) and value.requires_grad:
        leaves.append(value.detach().requires_grad_())
        return leaves[-1]
    return value


def _criterion_alone(name: str, criterion: nn.Module, call: Call, baseline: str = "") -> Side:
    """The criterion of a step, from the outputs of the decoder."""

    def forward() -> Tensor:
        return total(criterion(call.outputs, call.targets, **call.named))

    start = "the outputs of the decoder, with gradients as in the step"
    return Side(name, start, forward, call.leaves, baseline)


def _step_differences(
    args: argparse.Namespace,
    opts: list[str],
    call: Call,
    literal_model: nn.Module,
    literal_forward: Callable[[], Tensor],
) -> dict[str, float]:
    """Differences of the losses of a step with shared matches, our criterion in reference mode."""
    criterion = VideoSetCriterion.from_config(
        load_config(args.config_file, [*opts, *REFERENCE_MODE], args.device)
    ).to(args.device)
    image_size = tuple(call.named["frames"].shape[-2:])
    matches = criterion.matcher(layers_of(call.outputs), call.targets, image_size)
    literal_model.criterion.matches = matches
    with captured_call(literal_model.criterion) as their_call, torch.no_grad():
        literal_forward()
        expected = literal_model.criterion(
            their_call.outputs, their_call.targets, **their_call.named
        )
        ours = criterion(call.outputs, call.targets, **call.named, matches=matches)
    return loss_differences(ours, expected)


def run_deform_attn(args: argparse.Namespace) -> Result:
    """Multi-scale deformable attention of the pixel decoder; B counts frames."""
    torch.manual_seed(args.seed)
    shapes = level_shapes(args)
    inputs = _attention_inputs(args, shapes)
    weight = torch.randn(inputs[0].shape[0], inputs[1].shape[1], args.channels, device=args.device)
    functions = {"literal": grid_sample_attention, "ours": multi_scale_deformable_attention}

    def side(name: str, baseline: str) -> Side:
        value, locations, weights = leaves = _leaves(inputs)

        def forward() -> Tensor:
            return (functions[name](value, shapes, locations, weights) * weight).sum()

        return Side(
            name,
            "projected values, locations and weights, all with gradients",
            forward,
            leaves,
            baseline,
        )

    sides = [side("literal", ""), side("ours", "literal")]
    figures = measure(sides, args)
    outputs = []
    for one in sides:
        one.clear()
        one.forward().backward()
        value, locations, weights = one.leaves
        outputs.append(
            {
                "output": functions[one.name](value, shapes, locations, weights),
                **{
                    f"gradient of {name}": leaf.grad
                    for name, leaf in zip(
                        ("value", "locations", "weights"), one.leaves, strict=True
                    )
                },
            }
        )
    expected, ours = outputs
    differences = {name: relative_difference(ours[name], expected[name]) for name in expected}
    tokens = sum(height * width for height, width in shapes)
    note = f"{tokens} tokens in {args.levels} levels, {args.heads} heads, {args.channels} channels"
    return Result(sides, figures, differences, {"tokens": tokens}, [note])


def level_shapes(args: argparse.Namespace) -> list[tuple[int, int]]:
    """(height, width) of the maps of the encoder, coarse first."""
    coarse = [math.ceil(length / SIZE_DIVISIBILITY) for length in (args.height, args.width)]
    return [(coarse[0] * 2**k, coarse[1] * 2**k) for k in range(args.levels)]


def _attention_inputs(
    args: argparse.Namespace, shapes: list[tuple[int, int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Values (B, S, heads, D), locations (B, S, heads, K, P, 2) near each token, and weights."""
    centers = []
    for height, width in shapes:
        y, x = (torch.arange(n) + 0.5 for n in (height, width))
        y, x = torch.meshgrid(y / height, x / width, indexing="ij")
        centers.append(torch.stack([x, y], dim=-1).flatten(0, 1))
    center = torch.cat(centers)[None, :, None, None, None]
    sizes = torch.tensor([(width, height) for height, width in shapes], dtype=torch.float32)
    batch, tokens = args.batch, center.shape[1]
    # up to P cells away, as the initial weights of the layer have it
    shape = (batch, tokens, args.heads, len(shapes), args.sampling_points)
    offsets = torch.randn(*shape, 2) * args.sampling_points / 2
    locations = center + offsets / sizes[:, None]
    weights = torch.randn(*shape).flatten(3).softmax(-1).view(shape)
    value = torch.randn(batch, tokens, args.heads, args.channels // args.heads)
    return tuple(tensor.to(args.device) for tensor in (value, locations, weights))


# ------------------------------------------------------------------------------------- command line


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def _add_sizes(parser: argparse.ArgumentParser, **sizes: int) -> None:
    for name, default in sizes.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_positive,
            default=default,
            help=f"default {default}",
        )


def _add_scene(parser: argparse.ArgumentParser, batch: int) -> None:
    _add_sizes(parser, batch=batch, frames=3, height=360, width=640, objects=5)
    parser.add_argument(
        "--pairs",
        help="MODEL.MASKFREE.TEMPORAL.PAIRS; default: all up to 3 frames and cycle above, as the "
        "reference has them",
    )


def build_parser() -> argparse.ArgumentParser:
    """The command line: one subcommand per job."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    functions = {
        "similarity": run_similarity,
        "matcher": run_matcher,
        "criterion": run_criterion,
        "step": run_step,
        "deform_attn": run_deform_attn,
    }
    for name, function in functions.items():
        command = commands.add_parser(name, help=function.__doc__.splitlines()[0])
        command.set_defaults(function=function)
        _add_sizes(command, rounds=5, threads=2)
        command.add_argument("--warmup", type=int, default=1, help="rounds before; default 1")
        command.add_argument("--device", default="cpu", help="cpu or cuda; default cpu")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument(
            "--wait-policy",
            choices=("default", "passive", "active"),
            default="default",
            help="OMP_WAIT_POLICY of both sides; default leaves it unset, as in a training run; "
            "passive is steadier on a busy machine and wakes threads late",
        )
        command.add_argument("--json", metavar="FILE", help="also write the figures here")
        if name in ("similarity", "matcher", "criterion"):
            _add_scene(command, batch=2)
            _add_sizes(command, queries=100, classes=40, layers=10, mask_dim=256, points=20_000)
        if name == "criterion":
            command.add_argument(
                "--with-product",
                action="store_true",
                help="also both sides with the product of embeddings and features",
            )
        if name == "step":
            _add_scene(command, batch=1)
            command.add_argument("--config-file", default=str(R50_CONFIG))
            command.add_argument(
                "--multimask", action="store_true", help="also the step with the multimask head"
            )
            command.add_argument("--opts", nargs="*", default=[], help="KEY VALUE pairs")
        if name == "deform_attn":
            _add_sizes(command, batch=1, height=384, width=640, channels=256, heads=8)
            _add_sizes(command, levels=3, sampling_points=4)
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    args = build_parser().parse_args(argv)
    if getattr(args, "pairs", "") is None:
        args.pairs = "all" if args.frames <= 3 else "cycle"
    return args


def restart_with_environment(wait_policy: str) -> None:
    """Start the same command again with variables that are read before Python starts."""
    wanted = {**ENVIRONMENT, WAIT_POLICY: None if wait_policy == "default" else wait_policy}
    if all(os.environ.get(name) == value for name, value in wanted.items()):
        return
    settings = " ".join(f"{name}={value}" for name, value in wanted.items() if value)
    progress(f"starting again with {settings}")
    environment = {**os.environ, **wanted}
    environment = {name: value for name, value in environment.items() if value is not None}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device: expected a device that is there, got {args.device}; try cpu")
    torch.set_num_threads(args.threads)
    result = args.function(args)
    report = as_json(result, args)
    print_report(report, result.notes)
    if args.json:
        write_report(report, args.json)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool; exits with code 2 and one line for an error that the user can mend."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    restart_with_environment(parse_args().wait_policy)
    main()
