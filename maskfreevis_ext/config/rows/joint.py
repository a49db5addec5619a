"""Keys of joint training: which data sets how often, and clips that are made from images."""

from __future__ import annotations

from maskfreevis_ext.config.checks import (
    BOOLEAN,
    Check,
    above,
    either,
    integer,
    list_of,
    one_of,
)
from maskfreevis_ext.config.keys import Key

_PAIR = Check(
    lambda v: (
        isinstance(v, (list, tuple))
        and len(v) == 2
        and all(isinstance(text, str) and text for text in v)
    ),
    "",
)
_KINDS = ("brightness", "contrast", "saturation", "rotation")

ROWS: tuple[Key, ...] = (
    Key(
        "DATASETS.TRAIN_RATIOS",
        [],
        list_of(above(0), "numbers, more than 0"),
        "How often samples come from each of `DATASETS.TRAIN`, relative to the others. Empty: 1 "
        "for sets of images and 0.75 for sets of videos, as in the reference.",
    ),
    Key(
        "DATASETS.CLASS_MAPS",
        [],
        list_of(_PAIR, "[data set, mapping file] lists, such as [['coco', 'datasets/map.json']]"),
        "Mapping files from the classes of data sets to those of the last of `DATASETS.TRAIN`, "
        "which are trained: JSON objects of names. Without one, classes with equal names are the "
        "same, and public class lists have mappings of their own.",
    ),
    Key(
        "DATALOADER.BATCH",
        "homogeneous",
        one_of("homogeneous", "mixed"),
        "`homogeneous`: the samples of a batch on a GPU come from one data set, as in the "
        "reference. `mixed`: from any; clips of images then need as many frames as clips of "
        "videos.",
    ),
    Key(
        "INPUT.PSEUDO.SUPERVISION",
        "data",
        one_of("box", "mask", "teacher", "data"),
        "`INPUT.SUPERVISION` of data sets of images.",
    ),
    Key(
        "INPUT.PSEUDO.SAMPLING_FRAME_NUM",
        4,
        integer(1),
        "Number of frames of a clip that is made from an image.",
    ),
    Key(
        "INPUT.PSEUDO.SAMPLING_FRAME_RANGE",
        20,
        integer(0),
        "The frames are drawn from an imagined video of twice this many frames and one, over whose "
        "length the motion goes. 0: all frames are equal.",
    ),
    Key(
        "INPUT.PSEUDO.AUGMENTATIONS",
        ["rotation"],
        list_of(one_of(*_KINDS), f"entries from {', '.join(_KINDS)}"),
        "Further augmentations of clips of images. `rotation` turns the clip by up to 15 degrees "
        "from its first frame to its last; clips without masks are not turned.",
    ),
    Key(
        "INPUT.PSEUDO.MIN_SIZE_TRAIN",
        (480, 512, 544, 576, 608, 640, 672, 704, 736, 768),
        either(integer(1), list_of(integer(1), "integers, at least 1", low=1)),
        "`INPUT.MIN_SIZE_TRAIN` of clips of images.",
    ),
    Key("INPUT.PSEUDO.MAX_SIZE_TRAIN", 768, integer(1), "Longest side of clips of images, pixels."),
    Key(
        "INPUT.PSEUDO.MIN_SIZE_TRAIN_SAMPLING",
        "choice_by_clip",
        one_of("range", "choice", "range_by_clip", "choice_by_clip"),
        "`INPUT.MIN_SIZE_TRAIN_SAMPLING` of clips of images.",
    ),
    Key(
        "INPUT.PSEUDO.CROP.ENABLED",
        False,
        BOOLEAN,
        "Let a window drift over the image, in half of the clips.",
    ),
    Key(
        "INPUT.PSEUDO.CROP.TYPE",
        "absolute_range",
        one_of("relative", "relative_range", "absolute", "absolute_range"),
        "What `INPUT.PSEUDO.CROP.SIZE` means, as `INPUT.CROP.TYPE`. With sizes in pixels, the "
        "shorter side of the image is made 400, 500 or 600 pixels long before.",
    ),
    Key(
        "INPUT.PSEUDO.CROP.SIZE",
        (384, 600),
        list_of(above(0), "numbers, more than 0", length=2),
        "See `INPUT.PSEUDO.CROP.TYPE`.",
    ),
)
