"""Keys of the input: which videos, which frames of them, and how they are augmented."""

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
from maskfreevis_ext.config.keys import Key, checked

_DATASETS = list_of(
    Check(
        lambda v: (
            isinstance(v, (list, tuple))
            and len(v) in (3, 4)
            and all(isinstance(text, str) and text for text in v)
        ),
        "",
    ),
    "[name, annotation file, image root] lists, such as "
    "[['my_train', 'my/train.json', 'my/images']]",
)

ROWS: tuple[Key, ...] = (
    Key(
        "INPUT.DATASETS",
        [],
        _DATASETS,
        "Your own data sets: videos in the format of YouTube-VIS, or images in that of COCO, which "
        "the files tell. The names can then be used in `DATASETS.TRAIN` and `DATASETS.TEST`. A "
        "fourth entry (`box`, `mask`, `teacher`, `data`) is the supervision of this data set.",
    ),
    Key(
        "INPUT.SUPERVISION",
        "box",
        one_of("box", "mask", "teacher", "data"),
        "Which annotations training may use. `box`: boxes only, even where the JSON has masks. "
        "`mask`: every object must have masks. `teacher`: boxes, and the masks that there are as "
        "those of a teacher (`tools/boxes_to_masks.py`), which may err. `data`: as each video "
        "says: `teacher` where an object has a `confidence`, else `mask` if its objects all have "
        "masks, else `box`.",
    ),
    Key("INPUT.SAMPLING_FRAME_NUM", 3, integer(1), "Number of frames of a training clip, T."),
    Key(
        "INPUT.SAMPLING_FRAME_RANGE",
        5,
        integer(0),
        "The frames of a clip are at most this far from a random frame of the video.",
    ),
    Key(
        "INPUT.SAMPLING_FRAME_SHUFFLE",
        False,
        BOOLEAN,
        "Put the frames of a clip in random order, as the reference does. False: in the order of "
        "time, so that neighbouring frames of the clip are neighbours in time.",
    ),
    Key(
        "INPUT.AUGMENTATIONS",
        [],
        list_of(
            one_of("brightness", "contrast", "saturation", "rotation"),
            "entries from brightness, contrast, saturation, rotation",
        ),
        "Further augmentations, the same for all frames of a clip. `rotation` needs masks.",
    ),
    checked("INPUT.FORMAT", one_of("RGB", "BGR"), "Order of the colour channels of a frame."),
    checked(
        "INPUT.RANDOM_FLIP",
        one_of("none", "horizontal", "vertical", "flip_by_clip"),
        "Flip a clip with probability 0.5; `flip_by_clip` is `horizontal`.",
    ),
    checked(
        "INPUT.MIN_SIZE_TRAIN",
        either(integer(1), list_of(integer(1), "integers, at least 1", low=1)),
        "Lengths, in pixels, from which that of the shorter side of a training clip is drawn.",
    ),
    checked(
        "INPUT.MIN_SIZE_TRAIN_SAMPLING",
        one_of("range", "choice", "range_by_clip", "choice_by_clip"),
        "`choice`: one of `MIN_SIZE_TRAIN`. `range`: between its two. A clip always has one size, "
        "with or without `_by_clip`.",
    ),
    checked("INPUT.CROP.ENABLED", BOOLEAN, "Crop training clips at random."),
    checked(
        "INPUT.CROP.TYPE",
        one_of("relative", "relative_range", "absolute", "absolute_range"),
        "What `INPUT.CROP.SIZE` means: a share of height and width, the least share, height and "
        "width in pixels, or the least and the greatest side in pixels.",
    ),
    checked(
        "INPUT.CROP.SIZE",
        list_of(above(0), "numbers, more than 0", length=2),
        "See `INPUT.CROP.TYPE`.",
    ),
    Key("INPUT.LSJ_AUG.ENABLED", False, BOOLEAN, "Large-scale jitter instead of crop and resize."),
    Key(
        "INPUT.LSJ_AUG.IMAGE_SIZE",
        1024,
        integer(1),
        "Side of the square that is cut out of clips that became larger, pixels. At scale 1 the "
        "longer side of a clip has this length.",
    ),
    Key("INPUT.LSJ_AUG.MIN_SCALE", 0.1, above(0), "Least scale."),
    Key("INPUT.LSJ_AUG.MAX_SCALE", 2.0, above(0), "Largest scale."),
    checked("DATALOADER.NUM_WORKERS", integer(0), "Processes that load clips."),
)
