"""Keys of the multimask head: several mask hypotheses per object (SAM 2, arXiv 2408.00714)."""

from __future__ import annotations

from maskfreevis_ext.config.checks import BOOLEAN, FRACTION, at_least, at_most, integer, one_of
from maskfreevis_ext.config.keys import Key

_HEAD = (
    Key("MODEL.MULTIMASK.ENABLED", False, BOOLEAN, "Add the multimask head to the decoder."),
    Key(
        "MODEL.MULTIMASK.NUM_MASKS",
        3,
        integer(1),
        "M, mask hypotheses of a query beside its ordinary mask.",
    ),
    Key(
        "MODEL.MULTIMASK.IOU_SIGMOID",
        True,
        BOOLEAN,
        "Put a sigmoid on the predicted IoUs, so that they lie in (0, 1).",
    ),
    Key(
        "MODEL.MULTIMASK.PRED_OBJ_SCORES",
        True,
        BOOLEAN,
        "Predict for each frame whether the object is present (object score).",
    ),
    Key(
        "MODEL.MULTIMASK.NO_OBJ_OVERWRITE_IN_TRAIN",
        False,
        BOOLEAN,
        'Before the loss, replace the masks of objects whose score says "absent" by empty ones, '
        "as SAM 2 does. One wrong score then costs some hundred times as much as a wrong mask; for "
        "comparisons only.",
    ),
    Key(
        "MODEL.MULTIMASK.IOU_TARGET",
        "box",
        one_of("box", "teacher", "mask"),
        "IoU that the prediction learns from objects with boxes only. `box`: the IoU of the mask's "
        "tight box with the given box. `teacher`: the IoU with the teacher's mask where there is "
        "one, else as `box`. `mask`: none; the prediction learns from objects with masks "
        "only.",
    ),
    Key(
        "MODEL.MULTIMASK.STABILITY_DELTA",
        0.05,
        at_least(0),
        "Stability of a mask = IoU of the masks at the logit thresholds +delta and -delta.",
    ),
    Key(
        "MODEL.MULTIMASK.STABILITY_THRESH",
        0.98,
        FRACTION,
        "From this stability on, `TEST.STABILITY` keeps the ordinary mask.",
    ),
)

_LOSS = (
    Key(
        "MODEL.MULTIMASK.LOSS.MASK",
        20.0,
        at_least(0),
        "Weight of `loss_mask` (focal loss) for objects with masks; also in the choice of the best "
        "hypothesis.",
    ),
    Key(
        "MODEL.MULTIMASK.LOSS.DICE",
        1.0,
        at_least(0),
        "Weight of `loss_dice` for objects with masks; also in the choice of the best hypothesis.",
    ),
    Key("MODEL.MULTIMASK.LOSS.IOU", 1.0, at_least(0), "Weight of `loss_iou`."),
    Key(
        "MODEL.MULTIMASK.LOSS.CLASS",
        1.0,
        at_least(0),
        "Weight of `loss_class`, which trains the object score.",
    ),
    Key(
        "MODEL.MULTIMASK.LOSS.FOCAL_ALPHA",
        0.25,
        at_most(1),
        "Weight of the foreground in the focal loss, 1 - alpha that of the background. Below 0: no "
        "such weights.",
    ),
    Key("MODEL.MULTIMASK.LOSS.FOCAL_GAMMA", 2.0, at_least(0), "Exponent of the focal loss."),
    Key(
        "MODEL.MULTIMASK.LOSS.SUPERVISE_ALL_IOU",
        True,
        BOOLEAN,
        "Train the predicted IoU of every hypothesis. False: of the best one only.",
    ),
    Key(
        "MODEL.MULTIMASK.LOSS.IOU_L1",
        True,
        BOOLEAN,
        "Absolute error of the predicted IoU. False: squared error.",
    ),
    Key(
        "MODEL.MULTIMASK.LOSS.OBJ_GAMMA",
        0.0,
        at_least(0),
        "Focal exponent of `loss_class`; 0: plain BCE.",
    ),
    Key(
        "MODEL.MULTIMASK.LOSS.OBJ_ALPHA",
        -1.0,
        at_most(1),
        "Weight of frames with the object in `loss_class`, 1 - alpha that of frames without. Below "
        "0: no such weights.",
    ),
    Key(
        "MODEL.MULTIMASK.LOSS.NORM_STEPS_FRAMES",
        False,
        BOOLEAN,
        "Divide these four losses by the number of frames and of decoder outputs. False: plain "
        "sums over the frames, as in SAM 2.",
    ),
)

_TEST = (
    Key(
        "MODEL.MULTIMASK.TEST.USE_IOU",
        True,
        BOOLEAN,
        "Multiply the score of a track by its predicted IoU.",
    ),
    Key(
        "MODEL.MULTIMASK.TEST.USE_OBJECT_SCORE",
        True,
        BOOLEAN,
        "Multiply the score of a track by its object score.",
    ),
    Key(
        "MODEL.MULTIMASK.TEST.EMPTY_ABSENT",
        True,
        BOOLEAN,
        "Give an empty mask in frames whose object score is below 0.5.",
    ),
    Key(
        "MODEL.MULTIMASK.TEST.STABILITY",
        False,
        BOOLEAN,
        "Keep the ordinary mask where it is stable, else take the best of the other hypotheses, as "
        "SAM 2 does. False: take the highest predicted IoU of all.",
    ),
    Key(
        "MODEL.MULTIMASK.TEST.CONSENSUS",
        False,
        BOOLEAN,
        "In each frame show the hypothesis with the highest mean IoU with the others, whatever "
        "their predicted IoUs; `STABILITY` and `MARGIN` do not matter then.",
    ),
    Key(
        "MODEL.MULTIMASK.TEST.MARGIN",
        0.0,
        FRACTION,
        "Show another hypothesis than the ordinary mask only if its predicted IoU is higher by "
        "more than this. Trained from boxes, the predicted IoU is one of boxes, which says little "
        "about the inside of an object.",
    ),
)

ROWS: tuple[Key, ...] = (*_HEAD, *_LOSS, *_TEST)
