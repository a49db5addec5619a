"""Photographs of an optional dependency: found, or asked for in words that help."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from maskfreevis_ext.data.synthetic import SyntheticConfig, make_synthetic
from maskfreevis_ext.data.synthetic.photographs import PHOTOGRAPHS, photographs
from maskfreevis_ext.errors import DataError


def _check(found: tuple[np.ndarray, ...]) -> None:
    assert len(found) == 2 * len(PHOTOGRAPHS)
    for photo in found:
        assert photo.dtype == np.float32
        assert photo.shape[2] == 3
        assert min(photo.shape[:2]) >= 96
        assert photo.min() >= 0
        assert photo.max() <= 255


def test_photographs_are_read_at_two_scales(photos: Path) -> None:
    _check(photographs())
    assert photographs() is photographs()


@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="needs scikit-image")
def test_photographs_of_the_real_package() -> None:
    _check(photographs())


@pytest.mark.parametrize("level", [2, 3])
def test_without_the_package_the_extra_is_named_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    config = SyntheticConfig(num_train=1, num_val=1, level=level)
    with pytest.raises(DataError, match=r"maskfreevis_ext\[synthetic\]"):
        make_synthetic(str(tmp_path / "data"), config)
    assert not (tmp_path / "data").exists()


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "skimage" / "data").mkdir(parents=True)
    (tmp_path / "skimage" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match=r"astronaut\.png.*scikit-image"):
        photographs()
