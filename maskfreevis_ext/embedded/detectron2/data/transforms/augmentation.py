"""Base classes of augmentations, and how they are applied."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList


class Augmentation:
    """Draws a transform, given what it wants to know of the input.

    The parameters of ``get_transform`` name the attributes of the ``AugInput`` that it gets; a
    single parameter is always the image. Random numbers come from numpy's global generator.
    """

    #: Names of those attributes; found by inspection if None.
    input_args: tuple[str, ...] | None = None

    def _init(self, params: Mapping[str, Any] | None = None) -> None:
        """Keep the arguments of a constructor (its ``locals()``) as attributes."""
        for name, value in (params or {}).items():
            if name != "self" and not name.startswith("_"):
                setattr(self, name, value)

    def get_transform(self, *args: Any) -> Transform:
        """Draw a transform."""
        raise NotImplementedError

    def __call__(self, aug_input: AugInput) -> Transform:
        """Draw a transform, apply it to the input in place, and return it."""
        transform = self.get_transform(*self._arguments(aug_input))
        if not isinstance(transform, (Transform, TransformList)):
            raise AssertionError(
                f"{type(self).__name__}.get_transform returned a {type(transform)}, not a Transform."
            )
        aug_input.transform(transform)
        return transform

    def _arguments(self, aug_input: AugInput) -> list[Any]:
        if self.input_args is None:
            parameters = inspect.signature(self.get_transform).parameters
            variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            if len(parameters) > 1 and any(p.kind in variadic for p in parameters.values()):
                raise TypeError(
                    f"{type(self).__name__}.get_transform must name its arguments, or __call__ be replaced."
                )
            self.input_args = ("image",) if len(parameters) == 1 else tuple(parameters)
        return [getattr(aug_input, name) for name in self.input_args]

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


class _Fixed(Augmentation):
    """Always the same transform."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def get_transform(self, *args: Any) -> Transform:
        return self.transform

    def __repr__(self) -> str:
        return repr(self.transform)


class AugmentationList(Augmentation):
    """Augmentations one after the other, each seeing what the ones before it did.

    Args:
        augs: Augmentations, or plain transforms.
    """

    def __init__(self, augs: Sequence[Augmentation | Transform]) -> None:
        self.augs = [aug if isinstance(aug, Augmentation) else _Fixed(aug) for aug in augs]

    def __call__(self, aug_input: AugInput) -> TransformList:
        """Apply all of them in place, and return their transforms."""
        return TransformList([aug(aug_input) for aug in self.augs])

    def __repr__(self) -> str:
        return f"AugmentationList[{', '.join(str(aug) for aug in self.augs)}]"


class AugInput:
    """An image, and what moves along with it.

    Attributes:
        image: uint8 (or floating point) [H, W] or [H, W, C].
        boxes: [N, 4] XYXY_ABS, or None.
        sem_seg: Labels [H, W], or None.
    """

    def __init__(
        self,
        image: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        sem_seg: np.ndarray | None = None,
    ) -> None:
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            raise AssertionError(f"An image is an array [H, W] or [H, W, C], got {type(image)}.")
        self.image = image
        self.boxes = boxes
        self.sem_seg = sem_seg

    def transform(self, tfm: Transform) -> None:
        """Apply a transform to everything, in place."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)

    def apply_augmentations(
        self, augmentations: Sequence[Augmentation | Transform]
    ) -> TransformList:
        """Apply augmentations in place, and return their transforms."""
        return AugmentationList(augmentations)(self)


def apply_augmentations(
    augmentations: Sequence[Augmentation | Transform], inputs: AugInput | np.ndarray
) -> tuple[AugInput | np.ndarray, TransformList]:
    """Apply augmentations.

    Args:
        augmentations: In the order of use.
        inputs: An image, or an ``AugInput``, which changes in place.

    Returns:
        The result, of the type of ``inputs``, and the transforms.
    """
    if isinstance(inputs, np.ndarray):
        wrapped = AugInput(inputs)
        transforms = wrapped.apply_augmentations(augmentations)
        return wrapped.image, transforms
    return inputs, inputs.apply_augmentations(augmentations)


apply_transform_gens = apply_augmentations
