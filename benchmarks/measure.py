"""Time and memory of implementations that take turns."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.options import Options

#: ``--clock`` → seconds of it. The processor's counts the time of all threads of this process, and
#: hardly changes with the load of other programs.
CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "processor": time.process_time,
}


@dataclass
class Side:
    """One implementation of a job.

    Attributes:
        name: What the table calls it.
        start: What it starts from, in words.
        forward: Computes the tensor on which ``backward`` is called; returns None where there is
            no backward pass.
        leaves: Tensors that get gradients.
        baseline: Name of the side that the ratios compare this one with; empty: no ratios.
    """

    name: str
    start: str
    forward: Callable[[], Tensor | None]
    leaves: Sequence[Tensor] = ()
    baseline: str = ""

    def run(self) -> None:
        """Forward and, where there is one, backward pass."""
        result = self.forward()
        if result is not None:
            result.backward()

    def clear(self) -> None:
        """Delete the gradients of the last run."""
        for leaf in self.leaves:
            leaf.grad = None
        gc.collect()


@dataclass
class Figures:
    """What was measured of a side.

    Attributes:
        forward_s: Median time of the forward pass in seconds.
        forward_backward_s: The same with the backward pass; None where there is none.
        peak_extra_bytes: See ``peak_extra_memory``.
        samples_s: Times of each round, (forward, forward with backward).
    """

    forward_s: float
    forward_backward_s: float | None
    peak_extra_bytes: int
    samples_s: list[tuple[float, float | None]]


def no_result(function: Callable[[], object]) -> Callable[[], None]:
    """The same function without its result, for a ``Side`` that has no backward pass."""

    def call() -> None:
        function()

    return call


def progress(text: str) -> None:
    """Print to stderr what is going on."""
    print(text, file=sys.stderr, flush=True)


def format_seconds(value: float | None) -> str:
    """1.5 → "1.500 s", 0.0015 → "1.50 ms", None → "-"."""
    if value is None:
        return "-"
    return f"{value:.3f} s" if value >= 1 else f"{value * 1e3:.2f} ms"


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished; does nothing for the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_once(
    side: Side, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float | None]:
    """Seconds of one forward pass, and of the forward with the backward pass."""
    side.clear()
    synchronize(device)
    start = clock()
    result = side.forward()
    synchronize(device)
    middle = clock()
    if result is None:
        return middle - start, None
    result.backward()
    synchronize(device)
    return middle - start, clock() - start


def median_seconds(function: Callable[[], object], options: Options) -> float:
    """Median time in seconds of a function that has no backward pass."""
    side = Side("", "", no_result(function))
    device = torch.device(options.device)
    clock = CLOCKS[options.clock]
    seconds = [time_once(side, device, clock)[0] for _ in range(options.warmup + options.rounds)]
    return statistics.median(seconds[options.warmup :])


def peak_extra_memory(side: Side, device: torch.device) -> int:
    """Largest total size of the tensors during forward and backward, less that at the start.

    On a GPU ``max_memory_allocated``. On the CPU the running sum of the allocations that PyTorch's
    profiler records; libraries that allocate outside PyTorch are not counted.

    Returns:
        Bytes.
    """
    side.clear()
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        side.run()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        side.run()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    current = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        current += event.nbytes()
        peak = max(peak, current)
    return peak


def measure(sides: Sequence[Side], options: Options) -> dict[str, Figures]:
    """Medians over rounds in which the sides take turns, and the memory of each side.

    Returns:
        Name of the side → its figures.
    """
    device = torch.device(options.device)
    samples: dict[str, list[tuple[float, float | None]]] = {side.name: [] for side in sides}
    for index in range(-options.warmup, options.rounds):
        # every other round runs backwards, so that no side always follows the same one
        for side in sides if index % 2 == 0 else reversed(sides):
            sample = time_once(side, device, CLOCKS[options.clock])
            progress(
                f"{'warm-up' if index < 0 else f'round {index + 1}'}: {side.name}: "
                f"{format_seconds(sample[0])} forward, {format_seconds(sample[1])} with backward"
            )
            if index >= 0:
                samples[side.name].append(sample)
    figures = {}
    for side in sides:
        of_side = samples[side.name]
        both = [seconds for _, seconds in of_side if seconds is not None]
        peak = peak_extra_memory(side, device)
        figures[side.name] = Figures(
            forward_s=statistics.median(seconds for seconds, _ in of_side),
            forward_backward_s=statistics.median(both) if both else None,
            peak_extra_bytes=peak,
            samples_s=of_side,
        )
        side.clear()
        progress(f"memory: {side.name}: {peak / 2**20:.1f} MiB")
    return figures
