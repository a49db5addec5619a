"""Keys of the spatial mask head (after PAGE-4D, arXiv 2510.17568)."""

from __future__ import annotations

from maskfreevis_ext.config.checks import (
    BOOLEAN,
    NAME,
    TEXT,
    above,
    at_least,
    integer,
    list_of,
    one_of,
)
from maskfreevis_ext.config.keys import Key

_HEAD = (
    Key(
        "MODEL.SPATIAL_MASK.ENABLED",
        False,
        BOOLEAN,
        "Add the spatial mask head: it predicts a mask for each frame, which lowers the attention "
        "of the queries to a part of the frame.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.IN_LEVEL",
        "res3",
        NAME,
        "Feature map of the pixel decoder that the head takes; one of "
        "`MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES`.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.DETACH_INPUT",
        True,
        BOOLEAN,
        "No gradient from the head to the pixel decoder.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.TAU_INIT",
        2.0,
        above(0.001),
        "Initial temperature, which divides the mask logits in the attention bias; learned.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.ALPHA_INIT",
        1.0,
        above(0),
        "Initial strength, which multiplies the bias before it is limited; learned.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.BIAS_MAX",
        0.5,
        at_least(0),
        "Largest amount that is subtracted from an attention logit.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.SUPPRESS",
        "background",
        one_of("background", "dynamic"),
        "Part of the frame that gets less attention. `background`: where the mask is off. "
        "`dynamic`: where it is on, for tokens that describe the static scene, as in PAGE-4D.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.ROWS",
        "all",
        one_of("all", "gate"),
        "`all`: the same bias in every decoder layer. `gate`: multiplied by a learned factor per "
        "layer.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.LAYERS",
        [],
        list_of(integer(0), "layer numbers, from 0"),
        "Decoder layers with the bias, counted from 0; empty: all.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.HOLD_START",
        0,
        integer(0),
        "Training iteration at which the bias starts to fade out.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.HOLD_END",
        0,
        integer(0),
        "Training iteration from which on the bias is 0; not before `HOLD_START`. 0: the bias "
        "never fades.",
    ),
)

_LOSS = (
    Key(
        "MODEL.SPATIAL_MASK.LOSS.ENABLED",
        True,
        BOOLEAN,
        "Train the mask where there is ground truth. False: by the attention alone.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.LOSS.WEIGHT",
        1.0,
        at_least(0),
        "Weight of `loss_spatial_mask` and of `loss_spatial_box`.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.LOSS.DICE",
        0.0,
        at_least(0),
        "Weight of a Dice term that is added to the BCE in `loss_spatial_mask`.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.LOSS.USE_TV",
        False,
        BOOLEAN,
        "Add `loss_spatial_tv`, the total variation of the probabilities: smooth masks.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.LOSS.TV_WEIGHT",
        0.2,
        at_least(0),
        "0.1 of this is the weight of `loss_spatial_tv`, 0.05 of it that of "
        "`loss_spatial_temporal`.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.LOSS.USE_TEMPORAL",
        False,
        BOOLEAN,
        "Add `loss_spatial_temporal`: the background must not change between frames. For videos of "
        "a camera that does not move.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.LOSS.BOX_MODE",
        "skip",
        one_of("skip", "weak"),
        "What the head learns from videos without masks. `skip`: nothing. `weak`: the mask is off "
        "outside all boxes, and on somewhere in each row and column of a box.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.LOSS.BOX_NEGATIVES",
        True,
        BOOLEAN,
        "With `BOX_MODE` `weak`: pixels outside all boxes are background.",
    ),
    Key(
        "MODEL.SPATIAL_MASK.LOSS.POS_WEIGHT",
        1.0,
        at_least(0),
        "Weight of foreground pixels in the BCE; 0: number of background pixels / number of "
        "foreground pixels.",
    ),
)

ROWS: tuple[Key, ...] = (
    *_HEAD,
    *_LOSS,
    Key(
        "INPUT.MOTION_MASK_ROOT",
        "",
        TEXT,
        "Folder with masks of what moves, `<video>/<frame>.png`, where pixels above 0 move; the "
        "layout of SegAnyMo, `[<video>/]sam2/mask_frames/view_<v>/<ttt>.png`, is found too. The "
        "spatial mask head is then trained with them instead of with the masks of the objects; a "
        "frame without a file has no ground truth. Empty: the masks of the objects.",
    ),
)
