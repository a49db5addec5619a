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


class LargeScaleJitter(T.Augmentation):
    """Scales a clip by a wide range of factors, and cuts a square out of what became too large."""

    def __init__(self, size: int, least: float, most: float) -> None:
        """Keep the range.

        Args:
            size: Side of the square, pixels. At scale 1 the longer side of the frames is this long.
            least: Least scale, > 0.
            most: Largest scale.
        """
        super().__init__()
        self.size, self.least, self.most = size, least, most

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the scale and the place of the cut; ``image`` is a frame (H, W, 3)."""
        return self._at_scale(image, float(np.random.uniform(self.least, self.most)))

    def whole(self, image: np.ndarray) -> T.Transform:
        """The largest scale in the range, at most 1, at which nothing is cut off."""
        return self._at_scale(image, max(min(1.0, self.most), self.least))

    def _at_scale(self, image: np.ndarray, scale: float) -> T.Transform:
        height, width = image.shape[:2]
        factor = scale * self.size / max(height, width)
        new_h, new_w = max(round(height * factor), 1), max(round(width * factor), 1)
        crop_h, crop_w = min(new_h, self.size), min(new_w, self.size)
        y, x = np.random.randint(new_h - crop_h + 1), np.random.randint(new_w - crop_w + 1)
        resize = T.ResizeTransform(height, width, new_h, new_w)
        return T.TransformList([resize, T.CropTransform(int(x), int(y), crop_w, crop_h)])


#: Part of a box that a crop must leave in both directions, or remove as a whole. The part of a
#: convex object behind its middle is as wide as the object, so that what is left of its box is
#: still tight; of a smaller part nothing is known.
_LEAST_PART = 0.5
#: Crops that are drawn before a clip is left whole.
_DRAWS = 10


def keeps_boxes_tight(boxes: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether boxes that a frame cuts are known to be tight around objects, and some are left.

    Args:
        boxes: (N, 4), xyxy pixels of the cut frame, before they are clipped to it.
        size: (H, W) of the cut frame.

    Returns:
        False if less than half of the width or height of a box that is still in view is left, or
        if none of them is in view: empty places are the easiest to find, and teach little.
    """
    limit = np.array([size[1], size[0]], dtype=np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    left = np.minimum(boxes[:, 2:], limit) - np.maximum(boxes[:, :2], 0)
    is_visible = (left > 0).all(axis=1)
    return bool(is_visible.any()) and bool((left >= _LEAST_PART * sides)[is_visible].all())


class ClipAugmentation:
    """A list of augmentations that are applied with the same parameters to all frames of a clip."""

    def __init__(self, augmentations: Sequence[T.Augmentation]) -> None:
        self.augmentations = list(augmentations)

    @property
    def cuts(self) -> bool:
        """Whether some augmentation cuts parts off."""
        return any(isinstance(one, (T.RandomCrop, LargeScaleJitter)) for one in self.augmentations)

    def first_resize(self, size: tuple[int, int]) -> T.ResizeTransform | None:
        """Draw the resize of frames of a size (H, W); None if it is not the first augmentation.

        It depends on nothing but the size, so that frames may be read smaller (``__call__``).
        """
        if not self.augmentations or not isinstance(self.augmentations[0], T.ResizeShortestEdge):
            return None
        transform = self.augmentations[0].get_transform(np.broadcast_to(np.uint8(0), (*size, 3)))
        return transform if isinstance(transform, T.ResizeTransform) else None

    def __call__(
        self,
        frames: Sequence[np.ndarray],
        boxes: np.ndarray | None = None,
        resize: T.ResizeTransform | None = None,
    ) -> tuple[list[np.ndarray], T.TransformList]:
        """Augment a clip.

        Args:
            frames: Images (H, W, 3) uint8 of one size; at least one. With ``resize`` they may have
                been read at a reduced size.
            boxes: Boxes of all frames that nothing but the boxes says the extent of, (N, 4), xyxy
                pixels: cuts are drawn such that these stay tight (``keeps_boxes_tight``), and
                left out if there is none among a few. None: there are masks.
            resize: Of ``first_resize``, in place of the first augmentation.

        Returns:
            The new images, and the transforms for their boxes and masks.
        """
        before: list[T.Transform] = []
        if resize is not None:
            frames = [_resized(frame, resize) for frame in frames]
            boxes = None if boxes is None else resize.apply_box(boxes)
            before = [resize]
        first = frames[0]
        transforms = []
        for augmentation in self.augmentations[len(before) :]:
            transform, cut = _draw(augmentation, first, boxes)
            boxes = None if boxes is None else transform.apply_box(boxes)
            first = transform.apply_image(first) if cut is None else cut
            transforms.append(transform)
        both = T.TransformList(transforms)
        frames = [first, *(both.apply_image(frame) for frame in frames[1:])]
        return frames, T.TransformList([*before, *transforms])


def _resized(frame: np.ndarray, resize: T.ResizeTransform) -> np.ndarray:
    """A frame that may have been read at a reduced size, at the size that ``resize`` gives."""
    height, width = frame.shape[:2]
    return T.ResizeTransform(height, width, resize.new_h, resize.new_w).apply_image(frame)


def _draw(
    augmentation: T.Augmentation, frame: np.ndarray, boxes: np.ndarray | None
) -> tuple[T.Transform, np.ndarray | None]:
    """A transform that keeps boxes tight, and the frame if it was transformed for that."""
    may_cut = isinstance(augmentation, (T.RandomCrop, LargeScaleJitter))
    if boxes is None or len(boxes) == 0 or not may_cut:
        return augmentation.get_transform(frame), None
    for _ in range(_DRAWS):
        transform = augmentation.get_transform(frame)
        cut = transform.apply_image(frame)
        if keeps_boxes_tight(transform.apply_box(boxes), (cut.shape[0], cut.shape[1])):
            return transform, cut
    if isinstance(augmentation, LargeScaleJitter):
        return augmentation.whole(frame), None
    return T.NoOpTransform(), None


def random_crop(kind: str, size: Sequence[float], key: str = "INPUT.CROP") -> T.RandomCrop:
    """The crop of a TYPE and SIZE of the config.

    Args:
        kind: TYPE.
        size: SIZE.
        key: Section of the two, for messages.

    Raises:
        ConfigError: TYPE is not known, or SIZE does not fit it.
    """
    size = list(size)
    is_good = len(size) == 2 and all(number > 0 for number in size)
    if kind in ("relative", "relative_range"):
        is_good = is_good and max(size) <= 1
    elif kind == "absolute_range":
        is_good = is_good and size[0] <= size[1]
    elif kind != "absolute":
        is_good = False
    if not is_good:
        raise ConfigError(
            f"{key}.TYPE must be relative or relative_range with a SIZE of two numbers in"
            " (0, 1], absolute with (height, width), or absolute_range with (least, most) pixels;"
            f" got {kind!r} with {size}."
        )
    return T.RandomCrop(kind, size)


def random_resize(
    sizes: int | Sequence[int], sampling: str, longest: int, key: str = "INPUT"
) -> T.Augmentation:
    """The resize of MIN_SIZE_TRAIN, MIN_SIZE_TRAIN_SAMPLING and MAX_SIZE_TRAIN of the config.

    Args:
        sizes: MIN_SIZE_TRAIN.
        sampling: MIN_SIZE_TRAIN_SAMPLING.
        longest: MAX_SIZE_TRAIN.
        key: Section of the three, for messages.

    Raises:
        ConfigError: The sampling is not known, or the sizes do not fit it.
    """
    style = sampling.removesuffix("_by_clip")
    if style not in ("range", "choice"):
        raise ConfigError(
            f"{key}.MIN_SIZE_TRAIN_SAMPLING must be range, choice, range_by_clip or choice_by_clip"
            f" (all are by clip here), got {sampling!r}."
        )
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    if not sizes or (style == "range" and len(sizes) != 2):
        raise ConfigError(
            f"{key}.MIN_SIZE_TRAIN must hold {'two sizes' if style == 'range' else 'sizes'} for"
            f" sampling {style!r}, got {sizes}."
        )
    return T.ResizeShortestEdge(sizes, longest, style)


def random_flip(cfg: CfgNode) -> list[T.Augmentation]:
    """The flip of INPUT.RANDOM_FLIP; none if it is off.

    Raises:
        ConfigError: Its value is not known.
    """
    kind = cfg.INPUT.RANDOM_FLIP
    if kind == "none":
        return []
    if kind not in ("horizontal", "vertical", "flip_by_clip"):
        raise ConfigError(
            "INPUT.RANDOM_FLIP must be none, horizontal, vertical or flip_by_clip (horizontal),"
            f" got {kind!r}."
        )
    return [T.RandomFlip(horizontal=kind != "vertical", vertical=kind == "vertical")]


def random_colors(kinds: Sequence[str], image_format: str) -> list[T.Augmentation]:
    """The augmentations of colour in a list such as INPUT.AUGMENTATIONS.

    Args:
        kinds: Entries of the list; others than ``COLOR_KINDS`` are passed over.
        image_format: "RGB" or "BGR".
    """
    return [RandomColor(kind, image_format=image_format) for kind in kinds if kind in COLOR_KINDS]


def _colors_and_rotation(cfg: CfgNode, supervision: str) -> list[T.Augmentation]:
    """INPUT.AUGMENTATIONS; rotation only with masks, since a rotated box is too large."""
    kinds = list(cfg.INPUT.AUGMENTATIONS)
    unknown = [kind for kind in kinds if kind not in (*COLOR_KINDS, "rotation")]
    if unknown:
        raise ConfigError(
            f"INPUT.AUGMENTATIONS must hold {', '.join(COLOR_KINDS)} or rotation, got"
            f" {unknown[0]!r}."
        )
    out = random_colors(kinds, cfg.INPUT.FORMAT)
    if "rotation" in kinds and cfg.INPUT.SUPERVISION in ("box", "teacher"):
        raise ConfigError(
            f"INPUT.AUGMENTATIONS has rotation, but INPUT.SUPERVISION is"
            f" {cfg.INPUT.SUPERVISION}: a rotated box is larger than its object. Remove"
            " rotation, or train with masks."
        )
    if "rotation" in kinds and supervision == "mask":
        out.append(T.RandomRotation([-10, 10], expand=False, center=[[0.4, 0.4], [0.6, 0.6]]))
    return out


def build_clip_augmentation(
    cfg: CfgNode, is_train: bool, supervision: str = "box"
) -> ClipAugmentation:
    """Build the augmentation of clips from ``cfg.INPUT``.

    Crop and resize, or large-scale jitter in their place; flip, colour, rotation.

    Args:
        cfg: The config.
        is_train: True: all of them; False: only the resize, to MIN_SIZE_TEST and MAX_SIZE_TEST.
        supervision: "box", "mask" or "teacher": supervision of the samples. Only "mask" allows
            rotation.

    Raises:
        ConfigError: A key has a value that is not known, or rotation is asked for with boxes only.
    """
    if not is_train:
        size, longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        return ClipAugmentation([T.ResizeShortestEdge([size], longest, "choice")])
    jitter = cfg.INPUT.LSJ_AUG
    augmentations: list[T.Augmentation] = []
    if jitter.ENABLED:
        scales = jitter.MIN_SCALE, jitter.MAX_SCALE
        augmentations.append(LargeScaleJitter(jitter.IMAGE_SIZE, *scales))
    else:
        node = cfg.INPUT
        if node.CROP.ENABLED:
            augmentations.append(random_crop(node.CROP.TYPE, node.CROP.SIZE))
        augmentations.append(
            random_resize(node.MIN_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING, node.MAX_SIZE_TRAIN)
        )
    augmentations.extend(random_flip(cfg))
    augmentations.extend(_colors_and_rotation(cfg, supervision))
    return ClipAugmentation(augmentations)
