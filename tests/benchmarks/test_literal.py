"""The literal implementation against the stored values of the reference."""

from __future__ import annotations

import pytest

from benchmarks.literal.criterion import literal_losses
from tests.helpers.golden import CriterionCase


@pytest.mark.parametrize(
    "name", ["crit_main_s0", "crit_main_s2", "crit_main_s3_empty", "crit_t5_s0"]
)
def test_literal_losses_equal_the_reference(name: str) -> None:
    case = CriterionCase(name)
    targets = case.targets
    for clip, target in enumerate(targets):
        target["masks"] = case.masks_of(clip)
    pairs = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)] if case.is_cycle else [(0, 1), (0, 2), (1, 2)]
    losses = literal_losses(case.outputs, targets, case.frames, pairs, matches=case.matches)
    expected = case.expected()
    for key, value in losses.items():
        assert float(value.detach()) == pytest.approx(expected[key], rel=1e-5, abs=1e-6), key
