"""What a job found, as tables for people and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

import maskfreevis_ext
from benchmarks.measure import Figures, Side, format_seconds
from benchmarks.options import Options

CPU_INFO = Path("/proc/cpuinfo")  # Linux


@dataclass
class Result:
    """What a job found.

    Attributes:
        sides: What was compared.
        figures: Name of the side → its figures.
        differences: Name of a value → relative difference between the two implementations.
        details: More values, for the JSON only.
        notes: More lines, for the printed report only.
        memory_is: What the peak memory is; empty: what ``peak_extra_memory`` measures.
    """

    sides: Sequence[Side]
    figures: dict[str, Figures]
    differences: dict[str, float] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    memory_is: str = ""


class Ratio(TypedDict):
    """Baseline / side: above 1 the side is faster, or takes less memory."""

    baseline: str
    forward: float
    forward_backward: float | None
    memory: float


class Environment(TypedDict):
    """What the figures depend on besides the code."""

    torch: str
    python: str
    detectron2: str
    device: str
    processor: str
    processors: int
    threads: int
    memory_is: str
    variables: dict[str, str | None]


class Report(TypedDict):
    """The content of the JSON file."""

    command: str
    settings: dict[str, object]
    environment: Environment
    sides: dict[str, dict[str, object]]
    ratios: dict[str, Ratio]
    differences: dict[str, float]
    largest_difference: float | None
    details: Mapping[str, object]


def relative_difference(value: Tensor, expected: Tensor) -> float:
    """|a - b| / |b| in the Euclidean norm, in float64."""
    value, expected = value.detach().double(), expected.detach().double()
    return float((value - expected).norm() / expected.norm().clamp(min=1e-12))


def ratios(result: Result) -> dict[str, Ratio]:
    """The ratio of each side that has a baseline."""
    found: dict[str, Ratio] = {}
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


def processor_name() -> str:
    """The model of the processor as the system names it."""
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def describe_environment(options: Options, variables: Iterable[str]) -> Environment:
    """Look up versions, machine, threads and environment variables."""
    is_cuda = torch.device(options.device).type == "cuda"
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "detectron2": maskfreevis_ext.describe_provider(),
        "device": torch.cuda.get_device_name() if is_cuda else "cpu",
        "processor": processor_name(),
        "processors": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "memory_is": "torch.cuda.max_memory_allocated above the start"
        if is_cuda
        else "running peak of the allocations of tensors (torch profiler) above the start",
        "variables": {name: os.environ.get(name) for name in variables},
    }


def as_json(result: Result, options: Options, variables: Iterable[str]) -> Report:
    """Everything that was found.

    Args:
        result: What the job returned.
        options: The command line.
        variables: Environment variables to report.
    """
    environment = describe_environment(options, variables)
    environment["memory_is"] = result.memory_is or environment["memory_is"]
    return {
        "command": options.command,
        "settings": {key: value for key, value in vars(options).items() if key != "json"},
        "environment": environment,
        "sides": {
            side.name: {"starts_from": side.start, **vars(result.figures[side.name])}
            for side in result.sides
        },
        "ratios": ratios(result),
        "differences": result.differences,
        "largest_difference": max(result.differences.values(), default=None),
        "details": result.details,
    }


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first one aligned to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _figures_table(result: Result) -> str:
    rows = [("", "forward", "with backward", "peak extra", "x faster", "x leaner")]
    of_side = ratios(result)
    for name, figures in result.figures.items():
        ratio = of_side.get(name)
        speed = ratio and (ratio["forward_backward"] or ratio["forward"])
        rows.append(
            (
                name,
                format_seconds(figures.forward_s),
                format_seconds(figures.forward_backward_s),
                f"{figures.peak_extra_bytes / 2**20:.1f} MiB",
                f"{speed:.2f}" if speed else "",
                f"{ratio['memory']:.2f}" if ratio else "",
            )
        )
    return format_table(rows)


def _differences_table(differences: dict[str, float]) -> str:
    """The largest difference of each loss over all decoder outputs."""
    worst: dict[str, float] = {}
    for name, value in differences.items():
        term = name.rstrip("0123456789").removesuffix("_")
        worst[term] = max(worst.get(term, 0.0), value)
    return format_table([("  " + term, f"{value:.1e}") for term, value in worst.items()])


def print_report(result: Result, report: Report) -> None:
    """Print machine, figures, differences and notes."""
    environment = report["environment"]
    print(
        f"\n{report['command']} on {environment['device']}, {environment['threads']} threads, "
        f"torch {environment['torch']}"
    )
    print(
        f"machine: {environment['processor']}, {environment['processors']} processors, "
        f"Python {environment['python']}"
    )
    print(f"peak memory: {environment['memory_is']}")
    for name, value in environment["variables"].items():
        print(f"{name}={value if value is not None else '(not set)'}, for both sides")
    print(f"\n{_figures_table(result)}\n")
    for side in result.sides:
        print(f"{side.name} starts from {side.start}")
    if result.differences:
        print(f"\nlargest relative difference of\n{_differences_table(result.differences)}")
    for note in result.notes:
        print(note)
