"""Both ways to read and write video files."""

from __future__ import annotations

import pytest

from maskfreevis_ext.inference.video_io import decoders, encoders


@pytest.fixture(params=["pyav", "opencv"])
def backend(request, monkeypatch) -> str:
    """PyAV, and what is done without it."""
    if request.param == "opencv":
        monkeypatch.setattr(decoders, "av", None)
        monkeypatch.setattr(encoders, "av", None)
    return request.param
