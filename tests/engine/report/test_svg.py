"""Charts: round ticks, few points, well-formed drawings."""

from __future__ import annotations

import doctest
import itertools
import xml.etree.ElementTree as ElementTree

import pytest

from maskfreevis_ext.engine.report import svg
from maskfreevis_ext.engine.report.svg import Series, line_chart, thin_out, ticks


def test_examples():
    assert doctest.testmod(svg).failed == 0


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 7), (1e-5, 3e-5), (0, 123456), (2, 2)])
def test_ticks_cover_the_range_in_few_even_steps(low, high):
    values = ticks(low, high)
    assert values[0] <= low
    assert values[-1] >= high
    assert 3 <= len(values) <= 8
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert steps == pytest.approx([steps[0]] * len(steps))


def test_long_curves_are_thinned_out_and_short_ones_stay():
    points = [(float(i), float(i % 7)) for i in range(10_000)]
    assert len(thin_out(points)) <= 300
    assert thin_out(points[:200]) == points[:200]
    assert thin_out([]) == []


def test_chart_is_a_drawing_inside_its_frame():
    text = line_chart("loss <x>", [Series("a&b", [(0, 5.0), (10, 2.0)]), Series("c", [(5, 3.0)])])
    figure = ElementTree.fromstring(text)
    drawing = figure.find("svg")
    assert drawing is not None
    width, height = (float(side) for side in drawing.get("viewBox", "").split()[2:])
    lines = [line.get("points", "") for line in drawing.findall("polyline")]
    assert len(lines) == 2
    for x, y in (place.split(",") for line in lines for place in line.split()):
        assert 0 <= float(x) <= width
        assert 0 <= float(y) <= height
    first, last = lines[0].split()
    assert float(first.split(",")[0]) < float(last.split(",")[0])
    assert float(first.split(",")[1]) < float(last.split(",")[1])  # 5 is above 2
    assert "a&b: 5 at 0" in [title.text for title in drawing.iter("title")]


@pytest.mark.parametrize("points", [[], [(600, 47.0)]])
def test_nothing_is_drawn_without_a_line(points):
    assert line_chart("AP", [Series("AP", points)]) == ""
