"""Time and memory of a side."""

from __future__ import annotations

import time

import torch

from benchmarks.measure import CLOCKS, Side, median_seconds, peak_extra_memory, time_once
from benchmarks.options import parse_args


def test_peak_memory_is_what_the_tensors_take() -> None:
    x = torch.randn(1_000_000)

    def forward() -> None:
        doubled = x * 2
        for _ in range(3):
            doubled = doubled + x  # the old one is freed once the new one is there

    side = Side("one", "x", forward)
    assert peak_extra_memory(side, torch.device("cpu")) == 2 * 4_000_000


def test_time_includes_the_backward_pass_where_there_is_one() -> None:
    x = torch.ones(3, requires_grad=True)
    forward, both = time_once(Side("one", "x", lambda: x.sum(), [x]), torch.device("cpu"))
    assert both is not None
    assert both > forward > 0
    assert x.grad is not None
    assert time_once(Side("one", "x", lambda: None, [x]), torch.device("cpu"))[1] is None
    assert x.grad is None


def test_warm_up_rounds_are_not_counted() -> None:
    calls: list[int] = []
    options = parse_args(["deform_attn", "--rounds", "3", "--warmup", "2"])
    assert median_seconds(lambda: calls.append(1), options) >= 0
    assert len(calls) == 5


def test_processor_clock_does_not_count_waiting() -> None:
    side = Side("one", "x", lambda: time.sleep(0.2))
    waited, _ = time_once(side, torch.device("cpu"), CLOCKS["wall"])
    busy, _ = time_once(side, torch.device("cpu"), CLOCKS["processor"])
    assert busy < 0.1 < waited
