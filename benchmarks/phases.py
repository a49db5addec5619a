"""Time and products of each part of the network, forward and backward, beside the machine's speed.

The parts of a step are cut from each other: what a part returns is taken over as new leaves, so
that the backward pass of each part is a call of its own, and the whole gives the same gradients.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.literal.step import total
from benchmarks.measure import CLOCKS, format_seconds, synchronize
from benchmarks.report import format_table

#: Name of a part → its submodule, in the order in which they run.
PARTS = {
    "backbone": "backbone",
    "pixel decoder": "sem_seg_head.pixel_decoder",
    "transformer decoder": "sem_seg_head.predictor",
}
INPUT, CRITERION, OPTIMIZER, REST = "input", "criterion", "optimizer", "rest"
BACKWARD = ", backward"

#: Name of a phase → seconds, or floating-point operations.
Spent = dict[str, float]


@dataclass
class Phases:
    """What the phases of a side took.

    Attributes:
        seconds: Of each phase, in the order of the run; medians over rounds.
        flops: Operations of products and convolutions of each phase; empty: not counted.
    """

    seconds: Spent
    flops: Spent = field(default_factory=dict)


def cut_graph(value: Any, pairs: list[tuple[Tensor, Tensor]]) -> Any:
    """A structure whose tensors are cut from their graph.

    Args:
        value: Dicts, lists and tuples of tensors.
        pairs: Gets (tensor, new leaf) of every tensor that had a graph.
    """
    if isinstance(value, dict):
        return {key: cut_graph(item, pairs) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(cut_graph(item, pairs) for item in value)
    if isinstance(value, Tensor) and value.requires_grad:
        pairs.append((value, value.detach().requires_grad_()))
        return pairs[-1][1]
    return value


@contextmanager
def watched_parts(
    model: nn.Module, read: Callable[[], float], spent: Spent, cuts: dict[str, list] | None = None
) -> Iterator[None]:
    """Add to ``spent`` what the calls of the parts take, inside the block.

    Args:
        model: With the submodules of ``PARTS``.
        read: The clock, or the count of operations.
        spent: Gets the phases of the parts.
        cuts: Gets the ``pairs`` of ``cut_graph`` of each part; None: the graph stays whole.
    """
    started: Spent = {}
    handles = []

    def watch(name: str) -> None:
        def before(*_: object) -> None:
            started[name] = read()

        def after(_module: nn.Module, _inputs: object, output: Any) -> Any:
            spent[name] = spent.get(name, 0.0) + read() - started[name]
            return None if cuts is None else cut_graph(output, cuts.setdefault(name, []))

        part = model.get_submodule(PARTS[name])
        handles.append(part.register_forward_pre_hook(before))
        handles.append(part.register_forward_hook(after))

    for name in PARTS:
        watch(name)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def step_phases(
    forward: Callable[[], Mapping[str, Tensor]],
    model: nn.Module,
    update: Callable[[], object],
    read: Callable[[], float],
) -> Spent:
    """One training step, phase by phase.

    Args:
        forward: Runs the model on a batch and gives its losses.
        model: The model.
        update: Changes the weights.
        read: The clock, or the count of operations.

    Returns:
        ``input``, the parts, ``criterion``, the backward pass of each, and ``optimizer``.
    """
    model.zero_grad()
    of_parts: Spent = {}
    cuts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    first: list[float] = []
    start = read()
    handle = model.get_submodule(PARTS["backbone"]).register_forward_pre_hook(
        lambda *_: first.append(read())
    )
    with watched_parts(model, read, of_parts, cuts):
        value = total(forward())
    handle.remove()
    end = read()
    spent: Spent = {INPUT: first[0] - start, **of_parts}
    spent[CRITERION] = end - first[0] - sum(of_parts.values())
    start = read()
    value.backward()
    spent[CRITERION + BACKWARD] = (end := read()) - start
    for name in reversed(PARTS):
        pairs = [(tensor, leaf) for tensor, leaf in cuts[name] if leaf.grad is not None]
        tensors, leaves = zip(*pairs, strict=True)
        torch.autograd.backward(tensors, [leaf.grad for leaf in leaves])
        start, end = end, read()
        spent[name + BACKWARD] = end - start
    update()
    spent[OPTIMIZER] = read() - end
    return spent


def clock_of(device: torch.device, name: str = "wall") -> Callable[[], float]:
    """A clock of ``CLOCKS`` in seconds that waits for the device first."""

    def read() -> float:
        synchronize(device)
        return CLOCKS[name]()

    return read


def count_flops(run: Callable[[Callable[[], float]], Spent]) -> Spent:
    """The result of ``run`` with the count of operations as its clock.

    Only products, convolutions and attention are counted: what PyTorch's ``flop_counter`` knows,
    and the calls of oneDNN in ``modeling.products``.
    """
    with FlopCounterMode(display=False, custom_mapping=onednn_flops()) as counter:
        return run(lambda: float(counter.get_total_flops()))


def onednn_flops() -> dict[Any, Any]:
    """Operator of oneDNN → its operations, for the ``custom_mapping`` of ``FlopCounterMode``."""
    found: dict[Any, Any] = {torch.ops.aten.mkldnn_convolution: _convolution_flops}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        found[torch.ops.mkldnn._linear_pointwise] = _linear_flops
    return found


def _linear_flops(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    return 2 * math.prod(x) * weight[0]


def _convolution_flops(
    _: object, weight: Sequence[int], *__: object, out_shape: Sequence[int], **___: object
) -> int:
    return 2 * math.prod(weight) * out_shape[0] * math.prod(out_shape[2:])


def medians(rounds: Sequence[Spent]) -> Spent:
    """Median of each phase."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


@torch.no_grad()
def matrix_speed(device: torch.device, dtype: torch.dtype, clock: str = "wall") -> float:
    """Operations per second of a product of two large matrices: the speed that can be reached.

    Args:
        device: Where to multiply.
        dtype: Type of the matrices.
        clock: A key of ``CLOCKS``.
    """
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    read = clock_of(device, clock)
    seconds = []
    for _ in range(6):
        start = read()
        left @ right
        seconds.append(read() - start)
    return 2 * size**3 / min(seconds[1:])


def phase_table(name: str, phases: Phases, speed: float) -> str:
    """Phases of a side as a table.

    Args:
        name: The side.
        phases: What they took.
        speed: ``matrix_speed``.
    """
    whole = sum(phases.seconds.values())
    rows = [(f"phases: {name}", "time", "share", "GFLOP", "of the matrix speed")]
    flops = phases.flops
    entries = [
        *((phase, seconds, flops.get(phase, 0.0)) for phase, seconds in phases.seconds.items()),
        ("all", whole, sum(flops.values())),
    ]
    for phase, seconds, operations in entries:
        share = operations / max(seconds, 1e-9) / speed
        rows.append(
            (
                f"  {phase}",
                format_seconds(seconds),
                f"{seconds / max(whole, 1e-9):.1%}",
                f"{operations / 1e9:.2f}" if operations else "-",
                f"{share:.0%}" if operations else "-",
            )
        )
    return format_table(rows)


def speed_note(speeds: Mapping[str, float]) -> str:
    """The matrix speeds as a sentence."""
    shown = ", ".join(f"{speed / 1e9:.0f} GFLOP/s in {name}" for name, speed in speeds.items())
    return f"matrix speed (the best of 5 large products in this run): {shown}"
