"""Lab colours, colour edges and patch matches of a whole batch."""

from __future__ import annotations

import cProfile
import inspect
import statistics
from functools import partial
from typing import TypedDict

import torch

from benchmarks.compare import compare_values
from benchmarks.literal.criterion import similarities
from benchmarks.measure import Side, format_seconds, measure, median_seconds, no_result
from benchmarks.options import Options
from benchmarks.predictions import dense_start, make_predictions
from benchmarks.product import (
    affinities_of,
    build_criterion,
    compute_affinities,
    criterion_config,
    pairs_of,
)
from benchmarks.report import Result
from benchmarks.scene import make_scene, note_pass_rates, pass_rates

GROWTH_FRAMES = (3, 5, 8)


class Growth(TypedDict):
    """Time of the similarities for a number of frames."""

    frames: int
    seconds: float
    seconds_per_frame: float


class InCriterion(TypedDict):
    """Calls of the similarities in one call of the criterion, and their time."""

    layers: int
    objects: int
    calls: int
    seconds: float


def run(options: Options) -> Result:
    """Measure the similarities.

    Raises:
        ConfigError: An option does not fit.
        DataError: A loss is not finite.
    """
    scene, pairs = make_scene(options), pairs_of(options)
    ours = affinities_of(criterion_config(options), scene)
    literal = torch.no_grad()(partial(similarities, scene.frames, pairs))
    start = "padded frames"
    sides = [
        Side("literal", start, no_result(literal)),
        Side("ours", start, no_result(partial(ours, scene.frames)), baseline="literal"),
    ]
    figures = measure(sides, options)
    one_layer = options.replace(layers=1)
    differences, _ = compare_values(one_layer, scene, make_predictions(one_layer, scene))
    rates = pass_rates(scene, pairs)
    growth, in_criterion = _growth(options), _in_criterion(options)
    notes = [note_pass_rates(rates), "the differences are those of the losses made from it", ""]
    notes += [
        f"ours at T={row['frames']} (cycle): {format_seconds(row['seconds'])}, "
        f"{format_seconds(row['seconds_per_frame'])} per frame"
        for row in growth
    ]
    notes += [
        f"criterion with {row['layers']} outputs and {row['objects']} objects per clip: "
        f"{row['calls']} call, {format_seconds(row['seconds'])}"
        for row in in_criterion
    ]
    details = {"pass_rates": rates, "growth": growth, "in_criterion": in_criterion}
    return Result(sides, figures, differences, details, notes)


def _growth(options: Options) -> list[Growth]:
    """Median time by the number of frames T, with a cycle of T pairs."""
    long = options.replace(frames=max(GROWTH_FRAMES), pairs="cycle")
    scene = make_scene(long)
    ours = affinities_of(criterion_config(long), scene)
    rows: list[Growth] = []
    for num_frames in GROWTH_FRAMES:
        frames = scene.frames[:, :num_frames].contiguous()
        median = median_seconds(partial(ours, frames), options)
        rows.append(
            {"frames": num_frames, "seconds": median, "seconds_per_frame": median / num_frames}
        )
    return rows


def _in_criterion(options: Options) -> list[InCriterion]:
    """Calls and time of ``compute_affinities`` in one step, small and large.

    Python's profiler counts them. On a GPU the time is that of launching the kernels.
    """
    code = inspect.unwrap(compute_affinities).__code__
    rows: list[InCriterion] = []
    for layers, objects in ((1, 1), (options.layers, options.objects)):
        sized = options.replace(layers=layers, objects=objects)
        scene, criterion = make_scene(sized), build_criterion(criterion_config(sized))
        outputs = dense_start(make_predictions(sized, scene)).outputs
        calls, seconds = [], []
        for _ in range(options.warmup + options.rounds):
            profile = cProfile.Profile()
            with torch.no_grad():
                profile.runcall(criterion, outputs, scene.targets, scene.frames, scene.frame_sizes)
            entries = [entry for entry in profile.getstats() if entry.code is code]
            calls.append(sum(entry.callcount for entry in entries))
            seconds.append(sum(entry.totaltime for entry in entries))
        rows.append(
            {
                "layers": layers,
                "objects": objects,
                "calls": calls[-1],
                "seconds": statistics.median(seconds[options.warmup :]),
            }
        )
    return rows
