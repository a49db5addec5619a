"""Figures over seeds."""

from __future__ import annotations

import doctest
import math

import pytest

from experiments import metrics
from experiments.metrics import mean_curve, statistic


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


def test_mean_curve_has_the_points_of_all_seeds():
    points = mean_curve([[(0, 1.0), (10, 2.0), (20, 3.0)], [(10, 4.0), (20, 5.0)], []])
    assert points == [(10, 3.0, 2.0, 4.0), (20, 4.0, 3.0, 5.0)]
    assert mean_curve([]) == []
    assert mean_curve([[(5, 1.5)]]) == [(5, pytest.approx(1.5), 1.5, 1.5)]
