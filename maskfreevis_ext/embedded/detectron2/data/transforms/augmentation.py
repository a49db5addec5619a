"""Base class of augmentations."""

from __future__ import annotations

import inspect
from typing import Any

from fvcore.transforms.transform import Transform


class Augmentation:
    """Draws a transform for an image, with random numbers of numpy's global generator."""

    def get_transform(self, *args: Any) -> Transform:
        """Draw a transform for an image.

        Raises:
            NotImplementedError: The subclass does not define it.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        names = inspect.signature(type(self).__init__).parameters
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        arguments = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return f"{type(self).__name__}({arguments})"
