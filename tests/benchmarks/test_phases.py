"""Phases of a step: the same gradients as in one piece, all time and all products counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from detectron2.modeling import build_model
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.jobs.step import as_batch
from benchmarks.literal.step import total
from benchmarks.measure import CLOCKS
from benchmarks.options import parse_args
from benchmarks.phases import (
    BACKWARD,
    CRITERION,
    INPUT,
    OPTIMIZER,
    PARTS,
    Phases,
    count_flops,
    matrix_speed,
    onednn_flops,
    phase_table,
    step_phases,
)
from benchmarks.scene import make_scene
from maskfreevis_ext.modeling import products
from tests.helpers.configs import tiny_cfg


def test_phases_give_the_gradients_and_operations_of_the_whole_step() -> None:
    words = ["step", "--height", "64", "--width", "64", "--frames", "2", "--objects", "2"]
    batch = as_batch(make_scene(parse_args(words).replace(classes=3)))
    torch.manual_seed(0)
    model = build_model(tiny_cfg("MODEL.MASKFREE.TEMPORAL.WARMUP_ITERS", 0)).train()
    torch.manual_seed(1)
    with FlopCounterMode(display=False, custom_mapping=onednn_flops()) as counter:
        total(model(batch)).backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    updates: list[int] = []

    def run(read) -> dict[str, float]:
        torch.manual_seed(1)
        return step_phases(lambda: model(batch), model, lambda: updates.append(1), read)

    ticks = itertools.count()
    spent = run(lambda: float(next(ticks)))
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
    forward = [INPUT, *PARTS, CRITERION]
    assert list(spent) == [*forward, *(n + BACKWARD for n in reversed(forward[1:])), OPTIMIZER]
    assert min(spent.values()) > 0
    flops = count_flops(run)
    assert sum(flops.values()) == counter.get_total_flops()
    assert flops["backbone" + BACKWARD] > flops["backbone"] > 0
    assert len(updates) == 2


def test_table_shows_shares_of_time_and_of_the_speed() -> None:
    phases = Phases({"backbone": 3.0, "rest": 1.0}, {"backbone": 6e9})
    lines = phase_table("ours", phases, speed=4e9).splitlines()
    assert lines[1].split() == ["backbone", "3.000", "s", "75.0%", "6.00", "50%"]
    assert lines[2].split() == ["rest", "1.000", "s", "25.0%", "-", "-"]
    assert lines[3].split()[-2:] == ["6.00", "38%"]


def test_matrix_speed_is_that_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.count(0.0, 0.5)
    monkeypatch.setitem(CLOCKS, "wall", lambda: next(times))
    assert matrix_speed(torch.device("cpu"), torch.float32) == 2 * 1024**3 / 0.5


def test_count_flops_knows_the_products_of_onednn() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(300, 8, requires_grad=True), torch.randn(12, 8, requires_grad=True)
    maps = torch.randn(2, 8, 16, 16).contiguous(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(8, 12, 1)

    def run(read: Callable[[], float]) -> dict[str, float]:
        products.linear(x, weight).sum().backward()
        products.conv2d(maps, layer.weight, layer.bias, layer)
        return {"all": read()}

    assert count_flops(run)["all"] == 3 * 2 * 300 * 8 * 12 + 2 * 2 * 256 * 8 * 12
