"""Reading metrics.json, and figures over seeds."""

from __future__ import annotations

import doctest
import json
import math

import pytest

from experiments import metrics
from experiments.metrics import curve, last_iteration, mean_curve, read_metrics, statistic


def _write(path, *entries: object) -> None:
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(lines))


def test_examples():
    assert doctest.testmod(metrics).failed == 0


def test_mean_and_sample_standard_deviation():
    value = statistic([50, 54, 58, math.nan])
    assert (value.mean, value.deviation, value.count) == (54, 4, 3)
    assert value.text(2) == "54.00 ± 4.00"
    one = statistic([7.0])
    assert math.isnan(one.deviation)
    assert one.text() == "7.0"
    assert math.isnan(statistic([math.nan]).mean)


def test_later_lines_count_and_lines_that_were_cut_do_not(tmp_path):
    path = tmp_path / "metrics.json"
    _write(
        path,
        {"iteration": 19, "total_loss": 5.0},
        {"iteration": 39, "total_loss": 4.0},
        '{"iteration": 59, "tot{"iteration": 59, "total_loss": 9.0}',  # killed, then went on
        {"iteration": 39, "total_loss": 3.0},
        {"iteration": 40, "segm/AP": 12.5, "segm/APl": math.nan},
        "[1]",
        '{"iteration": 59, "to',
    )
    found = read_metrics(path)
    assert list(found) == [19, 39, 40]
    assert curve(found, "total_loss") == [(19, 5.0), (39, 3.0)]
    assert curve(found, "segm/AP") == [(40, 12.5)]
    assert curve(found, "segm/APl") == []
    assert last_iteration(path) == 41


def test_no_file_is_no_iteration(tmp_path):
    assert read_metrics(tmp_path / "none.json") == {}
    assert last_iteration(tmp_path / "none.json") == 0
    (tmp_path / "empty.json").touch()
    assert last_iteration(tmp_path / "empty.json") == 0


def test_mean_curve_has_the_points_of_all_seeds():
    points = mean_curve([[(0, 1.0), (10, 2.0), (20, 3.0)], [(10, 4.0), (20, 5.0)], []])
    assert points == [(10, 3.0, 2.0, 4.0), (20, 4.0, 3.0, 5.0)]
    assert mean_curve([]) == []
    assert mean_curve([[(5, 1.5)]]) == [(5, pytest.approx(1.5), 1.5, 1.5)]
