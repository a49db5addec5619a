"""Every provider gives the answers that the real Detectron2 gave (see ``probe.py``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.provider import probe

STORED = json.loads(Path(__file__).parents[1].joinpath("golden", "provider.json").read_text())
#: Pixels that OpenCV's interpolation rounds may differ by one between its versions.
TOLERANCE = {"rotation": 1e-3}


def _assert_close(actual: Any, expected: Any, tolerance: float, where: str) -> None:
    if isinstance(expected, dict):
        assert sorted(actual) == sorted(expected), where
        for name, value in expected.items():
            _assert_close(actual[name], value, tolerance, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(actual) == len(expected), where
        for index, value in enumerate(expected):
            _assert_close(actual[index], value, tolerance, f"{where}[{index}]")
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=tolerance, abs=tolerance), where
    else:
        assert actual == expected, where


@pytest.mark.parametrize("name", sorted(probe._QUESTIONS))
def test_answers_equal_those_of_the_real_package(name: str) -> None:
    answer = json.loads(json.dumps(probe._QUESTIONS[name]()))
    _assert_close(answer, STORED[name], TOLERANCE.get(name, 1e-5), name)


def test_every_stored_answer_is_still_asked_for() -> None:
    assert sorted(STORED) == sorted(probe._QUESTIONS)
