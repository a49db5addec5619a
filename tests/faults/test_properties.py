"""Properties of the JSON loader and the converter, with examples that hypothesis makes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.properties import PROPERTIES

_EXAMPLES = 60


@pytest.mark.parametrize("name", sorted(PROPERTIES))
def test_property_holds(name: str) -> None:
    check, strategies = PROPERTIES[name]

    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*strategies))
    def examples(values: tuple) -> None:
        check(*values)

    examples()
