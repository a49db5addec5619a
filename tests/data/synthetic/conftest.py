"""A stand-in for scikit-image's photographs, so that the tests do not need the package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfreevis_ext.data.synthetic.photographs import PHOTOGRAPHS


@pytest.fixture(scope="session")
def photo_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a package ``skimage`` whose data files are smooth random colours."""
    root = tmp_path_factory.mktemp("site")
    data = root / "skimage" / "data"
    data.mkdir(parents=True)
    (root / "skimage" / "__init__.py").touch()
    rng = np.random.default_rng(0)
    for name in PHOTOGRAPHS:
        cells = rng.integers(0, 256, size=(15, 20, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((400, 300), Image.Resampling.BILINEAR).save(data / name)
    return root


@pytest.fixture
def photos(photo_package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the stand-in the ``skimage`` that is found; the folder of its files."""
    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    monkeypatch.syspath_prepend(str(photo_package))
    importlib.invalidate_caches()
    return photo_package / "skimage" / "data"
