"""Frame rates of headers and time stamps."""

from __future__ import annotations

import pytest

from maskfreevis_ext.inference.video_io.decoders import believed_rates


@pytest.mark.parametrize(
    ("header", "stamps", "expected"),
    [
        (25.0, [0, 0.04, 0.08], (25, 25)),
        (30000 / 1001, [0, 0.033, 0.067, 0.1], (30000 / 1001, 30000 / 1001)),  # milliseconds
        (105.611, [t / 105.611 for t in range(9)], (105.611, 105.611)),
        (1000.0, [0, 0.1, 0.2], (10, 10)),  # units of time instead of a rate
        (50.0, [0, 0.04, 0.08, 0.12], (25, 25)),  # fields instead of frames
        (None, [0.2, 0, 0.1], (10, 10)),  # in the order of decoding
        (25.0, [0, 0.1, 0.6], (2 / 0.6, 10)),
        (25.0, [0, 0.001, 1.0], (2.0, 60)),
        (25.0, [], (25, 25)),
        (25.0, [0, 0, 0], (25, 25)),
        (1000.0, [0.0], (None, None)),
        (float("nan"), [], (None, None)),
        (None, [], (None, None)),
    ],
)
def test_time_stamps_are_believed_before_headers(header, stamps, expected):
    for got, wanted in zip(believed_rates(header, stamps), expected, strict=True):
        assert got == (None if wanted is None else pytest.approx(wanted))
