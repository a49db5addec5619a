"""Base class of augmentations."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform


class Augmentation:
    """Draws a transform for an image, with random numbers of numpy's global generator."""

    def _init(self, params: Mapping[str, Any] | None = None) -> None:
        """Keep the arguments of a constructor (its ``locals()``) as attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args: Any) -> Transform:
        """Draw a transform."""
        raise NotImplementedError

    def _rand_range(
        self, low: float = 1.0, high: float | None = None, size: Any = None
    ) -> float | np.ndarray:
        """A uniform number in [low, high), or in [0, low) if there is no ``high``."""
        if high is None:
            low, high = 0, low
        return np.random.uniform(low, high, [] if size is None else size)

    def __repr__(self) -> str:
        names = inspect.signature(type(self).__init__).parameters
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        arguments = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return f"{type(self).__name__}({arguments})"
