"""Settings of the generated data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from maskfreevis_ext.errors import DataError

#: Classes in the order of their ids (1, 2, 3).
CLASS_NAMES = ("circle", "triangle", "star")

#: Highest level of difficulty; ``levels.LEVELS`` has one entry for each.
MAX_LEVEL = 3


@dataclass(frozen=True)
class SyntheticConfig:
    """Level, sizes and counts of a generated data set.

    Attributes:
        level: Difficulty, 0 (clean shapes, the quickstart) to 3; ``levels.LEVELS`` says what each
            contains. Levels 2 and 3 need the photographs of scikit-image.
        num_train: Training videos, >= 0.
        num_val: Validation videos, >= 0.
        num_frames: Frames of each video, >= 1.
        height: Pixels, >= 48.
        width: Pixels, >= 48.
        min_objects: Fewest objects of a video, >= 1.
        max_objects: Most objects of a video.
        seed: Seed of all random numbers, >= 0; equal seeds give equal data sets.
        image_format: "jpg" or "png".
        train_masks: Also write ``instances_train_masks.json``, the training split with masks.
        mask_fraction: Above 0: also write ``instances_train_mixed.json``, in which this share of
            the videos, evenly spread, has masks.

    Raises:
        DataError: A value is out of range.
    """

    level: int = 0
    num_train: int = 120
    num_val: int = 24
    num_frames: int = 8
    height: int = 96
    width: int = 128
    min_objects: int = 1
    max_objects: int = 3
    seed: int = 0
    image_format: str = "jpg"
    train_masks: bool = False
    mask_fraction: float = 0.0

    def __post_init__(self) -> None:
        checks = (
            (self.level in range(MAX_LEVEL + 1), f"level must be 0 to {MAX_LEVEL}"),
            (self.num_train >= 0 and self.num_val >= 0, "num_train and num_val must be >= 0"),
            (self.num_frames >= 1, "num_frames must be >= 1"),
            (min(self.height, self.width) >= 48, "height and width must be >= 48 pixels"),
            (max(self.height, self.width) <= 4096, "height and width must be <= 4096 pixels"),
            (1 <= self.min_objects <= self.max_objects, "objects must be 1 <= min <= max"),
            (self.seed >= 0, "seed must be >= 0"),
            (0 <= self.mask_fraction <= 1, "mask_fraction must be in [0, 1]"),
            (self.image_format in ("jpg", "png"), 'image_format must be "jpg" or "png"'),
        )
        for is_good, text in checks:
            if not is_good:
                raise DataError(f"Synthetic data: {text}, got {asdict(self)}.")
