"""Keys of the box-supervised losses (MaskFreeVIS, arXiv 2303.15904), matching and inference."""

from __future__ import annotations

from maskfreevis_ext.config.checks import (
    BOOLEAN,
    FRACTION,
    ODD,
    POSITIVE_FRACTION,
    SHARES,
    at_least,
    integer,
    matching,
    one_of,
)
from maskfreevis_ext.config.keys import Key

_GENERAL = (
    Key(
        "MODEL.MASKFREE.LAB_CHANNEL_ORDER",
        "correct",
        one_of("correct", "reversed"),
        "Order of the colour channels when frames are converted to CIE Lab. `correct`: that of "
        "`INPUT.FORMAT`. `reversed`: red and blue exchanged, as the reference does with RGB input.",
    ),
    Key(
        "MODEL.MASKFREE.LAB_QUANTIZE",
        False,
        BOOLEAN,
        "Round the averaged colours down to whole numbers before the conversion to Lab, as the "
        "reference does.",
    ),
    Key(
        "MODEL.MASKFREE.MATCH_OUTSIDE",
        False,
        BOOLEAN,
        "Let padding and positions outside the map, which are black, match like other pixels in "
        "the pairwise and temporal losses, as the reference does.",
    ),
    Key(
        "MODEL.MASKFREE.DENSE_MASK_GRADIENTS",
        False,
        BOOLEAN,
        "Keep the autograd graph of the masks of all queries in training. False: the masks of "
        "matched queries only are computed with a graph, from their embeddings and the mask "
        "features; the gradients are the same, with far less memory and time.",
    ),
    Key(
        "MODEL.MASKFREE.PROJECTION.WEIGHT",
        1.0,
        at_least(0),
        "Weight of `loss_mask_proj`, times `MODEL.MASK_FORMER.MASK_WEIGHT`.",
    ),
    Key(
        "MODEL.MASKFREE.PROJECTION.EMPTY_FRAME_WEIGHT",
        1.0,
        at_least(0),
        "Weight of the projection loss in frames where the object is absent, which pushes the mask "
        "to be empty there. 0: such a frame adds the constant 2 without a gradient, as in the "
        "reference.",
    ),
)

_PAIRWISE = (
    Key(
        "MODEL.MASKFREE.PAIRWISE.WEIGHT",
        1.0,
        at_least(0),
        "Weight of `loss_bound`, times `MODEL.MASK_FORMER.MASK_WEIGHT`.",
    ),
    Key(
        "MODEL.MASKFREE.PAIRWISE.DILATION",
        2,
        integer(1),
        "Distance of a pixel's 8 neighbours, in cells of the mask features (stride 4).",
    ),
    Key(
        "MODEL.MASKFREE.PAIRWISE.THRESHOLD",
        0.3,
        POSITIVE_FRACTION,
        "Least colour similarity, exp(-dE / 2) with the distance dE in Lab, of two neighbours that "
        "must have the same label.",
    ),
    Key(
        "MODEL.MASKFREE.PAIRWISE.WARMUP_ITERS",
        0,
        integer(0),
        "Iterations in which the weight rises linearly from 0; the reference has none.",
    ),
)

_TEMPORAL = (
    Key(
        "MODEL.MASKFREE.TEMPORAL.WEIGHT",
        1.0,
        at_least(0),
        "Weight of `loss_bound_neighbor` (the TK-Loss), times `MODEL.MASK_FORMER.MASK_WEIGHT`.",
    ),
    Key(
        "MODEL.MASKFREE.TEMPORAL.SCALE",
        0.1,
        at_least(0),
        "Further factor on that loss; lambda_temp of the paper.",
    ),
    Key(
        "MODEL.MASKFREE.TEMPORAL.PAIRS",
        "all",
        matching(
            r"cycle|all|chain|stride-[1-9]\d*", "one of cycle, all, chain, stride-k with k >= 1"
        ),
        "Pairs of frames that are compared. `chain`: each frame with the next; `cycle`: the same, "
        "and the last with the first; `all`: every two frames; `stride-k`: frames that are k "
        "apart.",
    ),
    Key(
        "MODEL.MASKFREE.TEMPORAL.NORM_PAIRS",
        3,
        integer(0),
        "Number of pairs that `WEIGHT` is meant for: the sum over E pairs is multiplied by "
        "`NORM_PAIRS` / E, so that the term does not grow with the length of the clip. 0: the "
        "plain sum, as in the reference, which is the same with 3 frames.",
    ),
    Key(
        "MODEL.MASKFREE.TEMPORAL.PATCH_SIZE",
        3,
        ODD,
        "Side of the Lab patches that are compared, in cells; N of the paper.",
    ),
    Key(
        "MODEL.MASKFREE.TEMPORAL.SEARCH_RADIUS",
        1,
        integer(0),
        "Radius r of the search window: (2 r + 1)^2 candidate positions in the other frame.",
    ),
    Key(
        "MODEL.MASKFREE.TEMPORAL.SEARCH_DILATION",
        3,
        integer(1),
        "Distance of neighbouring candidates, in cells.",
    ),
    Key(
        "MODEL.MASKFREE.TEMPORAL.TOP_K",
        5,
        integer(1),
        "Best candidates kept per pixel, at most (2 r + 1)^2; K of the paper.",
    ),
    Key(
        "MODEL.MASKFREE.TEMPORAL.THRESHOLD",
        0.05,
        POSITIVE_FRACTION,
        "Least patch similarity, exp(-d / 2) with the patch distance d, of a match; D of the "
        "paper.",
    ),
    Key(
        "MODEL.MASKFREE.TEMPORAL.WARMUP_ITERS",
        200,
        integer(0),
        "Iterations in which the weight rises linearly from 0. The reference says 2000, but counts "
        "each of its 10 decoder outputs, which makes 200 iterations.",
    ),
)

_TEACHER = (
    Key(
        "MODEL.MASKFREE.TEACHER.WEIGHT",
        1.0,
        at_least(0),
        "Weight of `loss_teacher`, times `MODEL.MASK_FORMER.MASK_WEIGHT`: BCE and Dice with the "
        "masks of a teacher (`INPUT.SUPERVISION` `teacher`), weighted by their confidence.",
    ),
    Key(
        "MODEL.MASKFREE.TEACHER.GROW",
        0.1,
        at_least(0),
        "The term looks at the box and at what is around it up to this share of its sides.",
    ),
    Key(
        "MODEL.MASKFREE.TEACHER.LEAST_CONFIDENCE",
        0.0,
        FRACTION,
        "Masks of a smaller confidence are not used.",
    ),
    Key(
        "MODEL.MASKFREE.TEACHER.MATCH_WEIGHT",
        0.0,
        at_least(0),
        "Weight of Dice with the teacher's masks in the matching cost, beside Dice of the boxes.",
    ),
)

_PRIORS = (
    Key(
        "MODEL.MASKFREE.OUTSIDE.WEIGHT",
        0.0,
        at_least(0),
        "Weight of `loss_outside`, times `MODEL.MASK_FORMER.MASK_WEIGHT`: pixels outside all boxes "
        "of a frame are background. 0: the term is left out.",
    ),
    Key(
        "MODEL.MASKFREE.OUTSIDE.SHARE",
        0.1,
        POSITIVE_FRACTION,
        "That term is the mean over this share of the cells, those that look most like object.",
    ),
    Key(
        "MODEL.MASKFREE.FILL.WEIGHT",
        0.0,
        at_least(0),
        "Weight of `loss_fill`, times `MODEL.MASK_FORMER.MASK_WEIGHT`: the share of its box that a "
        "mask fills lies in `RANGE`. 0: the term is left out.",
    ),
    Key(
        "MODEL.MASKFREE.FILL.RANGE",
        [0.4, 0.9],
        SHARES,
        "Least and largest share of the box.",
    ),
)

_SELF_TRAINING = (
    Key(
        "MODEL.MASKFREE.SELF_TRAINING.ENABLED",
        False,
        BOOLEAN,
        "An average of the weights over the last steps is the teacher of clips that have boxes: "
        "its masks train `loss_teacher` where they agree with the boxes and over time. A step "
        "takes about a third longer, and checkpoints hold the weights twice.",
    ),
    Key(
        "MODEL.MASKFREE.SELF_TRAINING.DECAY",
        0.998,
        FRACTION,
        "Weight of the old average at each step.",
    ),
    Key(
        "MODEL.MASKFREE.SELF_TRAINING.START_ITER",
        500,
        integer(0),
        "The teacher teaches from this iteration on.",
    ),
    Key(
        "MODEL.MASKFREE.SELF_TRAINING.BOX_IOU",
        0.8,
        FRACTION,
        "Least IoU of the tight box of a mask with the given box.",
    ),
    Key(
        "MODEL.MASKFREE.SELF_TRAINING.STEADINESS",
        0.7,
        FRACTION,
        "The least share of its box that an object fills in any frame must be this share of the "
        "largest one.",
    ),
)

_OTHERS = (
    Key(
        "MODEL.MASKFREE.MATCHER.NONFINITE_COST",
        "error",
        one_of("error", "replace"),
        "What happens when a matching cost is NaN or infinite. `error`: training stops with an "
        "error. `replace`: such pairs are matched last, and counted.",
    ),
    Key("MODEL.MASKFREE.TEST.NUM_TRACKS", 10, integer(1), "Tracks kept per video, best first."),
    Key(
        "MODEL.MASKFREE.TEST.FRAMES_PER_CHUNK",
        4,
        integer(1),
        "Frames that pass the backbone together at inference, and the pixel decoder too (on a CPU "
        "2 of them at a time): more is faster, fewer takes less memory. The result is the same.",
    ),
)

ROWS: tuple[Key, ...] = (
    *_GENERAL,
    *_PAIRWISE,
    *_TEMPORAL,
    *_TEACHER,
    *_PRIORS,
    *_SELF_TRAINING,
    *_OTHERS,
)
