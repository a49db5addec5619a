"""Augmentations of clips: parameters are drawn once per clip and then applied to every frame.

The transforms are Detectron2's. No state is kept between clips, so an error in one clip cannot
affect the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from maskfreevis_ext.errors import ConfigError

COLOR_KINDS = ("brightness", "contrast", "saturation")

#: Luma weights of R, G and B (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


class _ColorTransform(T.Transform):
    """Blend each pixel with its grey value, then gain * pixel + offset; no geometric change."""

    def __init__(self, gain: float, offset: float, saturation: float, luma: np.ndarray) -> None:
        super().__init__()
        self.gain, self.offset, self.saturation, self.luma = gain, offset, saturation, luma

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Image (H, W, 3), 0..255, of the same type."""
        out = img.astype(np.float32)
        if self.saturation != 1.0:
            grey = out @ self.luma
            out = grey[..., None] + self.saturation * (out - grey[..., None])
        out = self.gain * out + self.offset
        if img.dtype == np.uint8:
            return np.clip(np.rint(out), 0, 255).astype(np.uint8)
        return out.astype(img.dtype)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Coordinates (N, 2), unchanged."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Mask (H, W), unchanged."""
        return segmentation


class RandomColor(T.Augmentation):
    """Multiplies brightness, contrast or saturation by a random factor.

    To change the saturation, Detectron2 would blend all frames with the grey picture of the first
    frame. Here each frame is blended with its own grey picture, and equal pixel values of different
    frames stay equal, so that colour similarities between frames keep their meaning.
    """

    def __init__(
        self, kind: str, low: float = 0.9, high: float = 1.1, image_format: str = "RGB"
    ) -> None:
        """Keep the kind and the range.

        Args:
            kind: One of ``COLOR_KINDS``.
            low: Least factor.
            high: Largest factor; factors are uniform in [low, high].
            image_format: "RGB" or "BGR", the order of the channels.

        Raises:
            ValueError: ``kind`` is unknown.
        """
        super().__init__()
        if kind not in COLOR_KINDS:
            raise ValueError(f"kind must be one of {COLOR_KINDS}, got {kind!r}.")
        self.kind, self.low, self.high = kind, low, high
        luma = _LUMA[::-1] if image_format == "BGR" else _LUMA
        self.luma = np.asarray(luma, dtype=np.float32)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the random transform of a clip; ``image`` is its first frame (H, W, 3)."""
        factor = float(np.random.uniform(self.low, self.high))
        if self.kind == "brightness":
            return _ColorTransform(factor, 0.0, 1.0, self.luma)
        if self.kind == "contrast":
            return _ColorTransform(factor, (1.0 - factor) * float(image.mean()), 1.0, self.luma)
        return _ColorTransform(1.0, 0.0, factor, self.luma)


class ClipAugmentation:
    """A list of augmentations that are applied with the same parameters to all frames of a clip."""

    def __init__(self, augmentations: Sequence[T.Augmentation]) -> None:
        self.augmentations = list(augmentations)

    def __call__(self, frames: Sequence[np.ndarray]) -> tuple[list[np.ndarray], T.TransformList]:
        """Augment a clip.

        Args:
            frames: Images (H, W, 3) uint8 of one size; at least one.

        Returns:
            The new images, and the transforms for their boxes and masks.
        """
        first = frames[0]
        transforms = []
        for augmentation in self.augmentations:
            transform = augmentation.get_transform(first)
            first = transform.apply_image(first)
            transforms.append(transform)
        both = T.TransformList(transforms)
        return [first, *(both.apply_image(frame) for frame in frames[1:])], both


def _crop(cfg: CfgNode) -> list[T.Augmentation]:
    if not cfg.INPUT.CROP.ENABLED:
        return []
    kind, size = cfg.INPUT.CROP.TYPE, list(cfg.INPUT.CROP.SIZE)
    is_good = len(size) == 2 and all(number > 0 for number in size)
    if kind in ("relative", "relative_range"):
        is_good = is_good and max(size) <= 1
    elif kind == "absolute_range":
        is_good = is_good and size[0] <= size[1]
    elif kind != "absolute":
        is_good = False
    if not is_good:
        raise ConfigError(
            "INPUT.CROP.TYPE must be relative or relative_range with a SIZE of two numbers in"
            " (0, 1], absolute with (height, width), or absolute_range with (least, most) pixels;"
            f" got {kind!r} with {size}."
        )
    return [T.RandomCrop(kind, size)]


def _resize(cfg: CfgNode, is_train: bool) -> T.Augmentation:
    if not is_train:
        return T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST, "choice")
    sizes, style = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    style = style.removesuffix("_by_clip")
    if style not in ("range", "choice"):
        raise ConfigError(
            "INPUT.MIN_SIZE_TRAIN_SAMPLING must be range, choice, range_by_clip or choice_by_clip"
            f" (all are by clip here), got {cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING!r}."
        )
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    if not sizes or (style == "range" and len(sizes) != 2):
        raise ConfigError(
            f"INPUT.MIN_SIZE_TRAIN must hold {'two sizes' if style == 'range' else 'sizes'} for"
            f" sampling {style!r}, got {sizes}."
        )
    return T.ResizeShortestEdge(sizes, cfg.INPUT.MAX_SIZE_TRAIN, style)


def _flip(cfg: CfgNode) -> list[T.Augmentation]:
    kind = cfg.INPUT.RANDOM_FLIP
    if kind == "none":
        return []
    if kind not in ("horizontal", "vertical", "flip_by_clip"):
        raise ConfigError(
            "INPUT.RANDOM_FLIP must be none, horizontal, vertical or flip_by_clip (horizontal),"
            f" got {kind!r}."
        )
    return [T.RandomFlip(horizontal=kind != "vertical", vertical=kind == "vertical")]


def _photometric_and_rotation(cfg: CfgNode, supervision: str) -> list[T.Augmentation]:
    """INPUT.AUGMENTATIONS; rotation only with masks, since a rotated box is too large."""
    out: list[T.Augmentation] = []
    for kind in cfg.INPUT.AUGMENTATIONS:
        if kind in COLOR_KINDS:
            out.append(RandomColor(kind, image_format=cfg.INPUT.FORMAT))
        elif kind != "rotation":
            raise ConfigError(
                f"INPUT.AUGMENTATIONS must hold {', '.join(COLOR_KINDS)} or rotation, got {kind!r}."
            )
        elif cfg.INPUT.SUPERVISION in ("box", "teacher"):
            raise ConfigError(
                f"INPUT.AUGMENTATIONS has rotation, but INPUT.SUPERVISION is"
                f" {cfg.INPUT.SUPERVISION}: a rotated box is larger than its object. Remove"
                " rotation, or train with masks."
            )
        elif supervision == "mask":
            out.append(T.RandomRotation([-10, 10], expand=False, center=[[0.4, 0.4], [0.6, 0.6]]))
    return out


def build_clip_augmentation(
    cfg: CfgNode, is_train: bool, supervision: str = "box"
) -> ClipAugmentation:
    """Build the augmentation of clips from ``cfg.INPUT``: crop, resize, flip, colour, rotation.

    Args:
        cfg: The config.
        is_train: True: all of them; False: only the resize, to MIN_SIZE_TEST and MAX_SIZE_TEST.
        supervision: "box", "mask" or "teacher": supervision of the samples. Only "mask" allows
            rotation.

    Raises:
        ConfigError: A key has a value that is not known, or rotation is asked for with boxes only.
    """
    if not is_train:
        return ClipAugmentation([_resize(cfg, is_train)])
    augmentations: list[T.Augmentation] = []
    augmentations.extend(_crop(cfg))
    augmentations.append(_resize(cfg, is_train))
    augmentations.extend(_flip(cfg))
    augmentations.extend(_photometric_and_rotation(cfg, supervision))
    return ClipAugmentation(augmentations)
