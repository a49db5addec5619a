"""Chooses which ``detectron2`` this process uses: the real one, or the stand-in of this package.

``MASKFREEVIS_DETECTRON2`` is ``auto`` (default: real where it works, else embedded), ``real`` or
``embedded``. A ``detectron2`` that was imported before this module always stays. Nothing outside
this module asks which one runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from maskfreevis_ext.errors import ConfigError

ENV_VARIABLE = "MASKFREEVIS_DETECTRON2"
CHOICES = ("auto", "real", "embedded")
EMBEDDED_ROOT = Path(__file__).resolve().parent / "embedded"

#: What the project needs of the real package. ``import detectron2`` alone works even where a broken
#: torchvision makes these fail.
_PROBED = (
    "config",
    "structures",
    "layers",
    "modeling",
    "data",
    "solver",
    "checkpoint",
    "engine",
    "evaluation",
)

_logger = logging.getLogger("maskfreevis_ext")


class ProviderInfo(NamedTuple):
    """Which ``detectron2`` runs.

    Attributes:
        name: ``"real"`` or ``"embedded"``.
        version: Its ``__version__``.
        path: Folder that it was imported from.
        reason: Why this one was taken, as part of a sentence.
    """

    name: str
    version: str
    path: str
    reason: str


_info: ProviderInfo | None = None


def select_provider() -> ProviderInfo:
    """Make ``import detectron2`` work, and say which package that is.

    Later calls return the first answer.

    Returns:
        The provider of this process.

    Raises:
        ConfigError: ``MASKFREEVIS_DETECTRON2`` has an unknown value, or it is ``real`` and the real
            package cannot be imported.
    """
    global _info
    if _info is None:
        _info = _select(_requested())
    return _info


def provider_info() -> ProviderInfo:
    """The provider of this process: name, version, folder and the reason of the choice."""
    return select_provider()


def describe_provider() -> str:
    """One line for the log: which Detectron2 runs, its version, and why."""
    info = provider_info()
    return f"Detectron2 provider: {info.name} {info.version} ({info.reason}) from {info.path}"


def _requested() -> str:
    choice = os.environ.get(ENV_VARIABLE, "").strip().lower() or "auto"
    if choice not in CHOICES:
        raise ConfigError(
            f"Environment variable {ENV_VARIABLE}: expected one of {', '.join(CHOICES)}, "
            f"got {choice!r}. Unset it to let the package choose."
        )
    return choice


def _select(choice: str) -> ProviderInfo:
    loaded = sys.modules.get("detectron2")
    if loaded is not None:
        info = _describe(loaded, "it was imported before maskfreevis_ext")
        if choice not in ("auto", info.name):
            _logger.warning(
                "%s=%s has no effect: detectron2 was imported before maskfreevis_ext, from %s. "
                "Import maskfreevis_ext first.",
                ENV_VARIABLE,
                choice,
                info.path,
            )
        return info
    if choice == "embedded":
        return _use_embedded(f"{ENV_VARIABLE}=embedded")

    reason = f"{ENV_VARIABLE}=real" if choice == "real" else "the real package works"
    problem: str
    cause: Exception
    try:
        return _describe(_import_real(), reason)
    except _RealAbsentError as error:
        problem, cause = str(error), error
    except Exception as error:  # broken torchvision: RuntimeError; broken build: OSError
        _forget("detectron2")
        problem, cause = f"the real package is broken: {type(error).__name__}: {error}", error
        if choice == "auto":
            _logger.warning("Detectron2: %s. Using the embedded stand-in.", problem)
    if choice == "real":
        raise ConfigError(
            f"{ENV_VARIABLE}=real expects a working installation of Detectron2, but {problem}. "
            "Install it (https://github.com/facebookresearch/detectron2), or unset the variable to "
            "use the embedded stand-in."
        ) from cause
    return _use_embedded(problem)


class _RealAbsentError(ImportError):
    """There is no real package on ``sys.path``."""


def _import_real() -> ModuleType:
    spec = importlib.util.find_spec("detectron2")
    # A folder without __init__.py (a clone in the working directory) is not the package.
    if spec is None or spec.origin is None:
        raise _RealAbsentError("the real package is not installed")
    module = importlib.import_module("detectron2")
    if not _is_embedded(module):
        for name in _PROBED:
            importlib.import_module(f"detectron2.{name}")
    return module


def _use_embedded(reason: str) -> ProviderInfo:
    root = str(EMBEDDED_ROOT)
    # First, as a broken or unwanted real package may follow on the path.
    sys.path[:] = [root, *(entry for entry in sys.path if entry != root)]
    importlib.invalidate_caches()
    return _describe(importlib.import_module("detectron2"), reason)


def _is_embedded(module: ModuleType) -> bool:
    origin = getattr(module, "__file__", None)
    return origin is not None and EMBEDDED_ROOT in Path(origin).resolve().parents


def _describe(module: ModuleType, reason: str) -> ProviderInfo:
    origin = getattr(module, "__file__", None)
    return ProviderInfo(
        name="embedded" if _is_embedded(module) else "real",
        version=str(getattr(module, "__version__", "unknown")),
        path=str(Path(origin).parent) if origin else "unknown",
        reason=reason,
    )


def _forget(package: str) -> None:
    """Remove what a failed import left in ``sys.modules``."""
    for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
        del sys.modules[name]
