"""A table of the versions that a bug report needs."""

from __future__ import annotations

import importlib.metadata
import os
import sys

import detectron2
import torch
from tabulate import tabulate

__all__ = ["collect_env_info"]

_PACKAGES = (
    "numpy",
    "torch",
    "torchvision",
    "fvcore",
    "iopath",
    "yacs",
    "pycocotools",
    "Pillow",
    "opencv-python",
    "opencv-python-headless",
)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def collect_env_info() -> str:
    """Versions of python and the packages in use, the GPUs, and how torch was built."""
    rows = [
        ("sys.platform", sys.platform),
        ("Python", sys.version.replace("\n", "")),
        ("detectron2", f"{detectron2.__version__} @{os.path.dirname(detectron2.__file__)}"),
    ]
    rows += [(name, version) for name in _PACKAGES if (version := _version(name))]
    rows.append(("GPU available", str(torch.cuda.is_available())))
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        rows.append((f"GPU {index}", f"{torch.cuda.get_device_name(index)} (arch={major}.{minor})"))
    return tabulate(rows) + "\n" + torch.__config__.show()
