"""Keys of the network: Mask2Former (arXiv 2112.01527), its Swin backbone, Detectron2's ResNet."""

from __future__ import annotations

from maskfreevis_ext.config.checks import (
    BOOLEAN,
    DROP_RATE,
    FRACTION,
    NAME,
    NAMES,
    THREE_CHANNELS,
    above,
    at_least,
    integer,
    list_of,
    matching,
    optional,
)
from maskfreevis_ext.config.keys import Key, checked

_POSITIVE_INTEGERS = list_of(integer(1), "integers, at least 1", low=1)

_DETECTRON2 = (
    checked(
        "MODEL.DEVICE",
        matching(
            r"(cpu|cuda|meta)(:\d+)?",
            "cpu, cuda or cuda:N with the number N of a GPU (float64 is used, which rules out mps)",
        ),
        "Where the model runs. Without a GPU, `cuda` becomes `cpu`, with a warning.",
    ),
    checked(
        "MODEL.PIXEL_MEAN",
        THREE_CHANNELS,
        "Subtracted from the pixels, which lie in [0, 255]; channels in the order of "
        "`INPUT.FORMAT`.",
    ),
    checked("MODEL.PIXEL_STD", THREE_CHANNELS, "The difference is divided by this."),
    checked(
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES", integer(1), 'Number of classes, without "no object".'
    ),
    checked(
        "MODEL.SEM_SEG_HEAD.IN_FEATURES",
        NAMES,
        "Feature maps of the backbone that the pixel decoder takes.",
    ),
    checked("MODEL.SEM_SEG_HEAD.CONVS_DIM", integer(1), "Channels inside the pixel decoder."),
    checked(
        "MODEL.SEM_SEG_HEAD.COMMON_STRIDE",
        integer(1),
        "Stride of the mask features and so of the predicted masks, in pixels.",
    ),
)

_MASK_FORMER = (
    Key(
        "MODEL.MASK_FORMER.DEEP_SUPERVISION",
        True,
        BOOLEAN,
        "Compute the losses on every decoder output. False: on the last one only.",
    ),
    Key(
        "MODEL.MASK_FORMER.NO_OBJECT_WEIGHT",
        0.1,
        at_least(0),
        'Weight of the class "no object" in the cross-entropy.',
    ),
    Key(
        "MODEL.MASK_FORMER.CLASS_WEIGHT",
        1.0,
        at_least(0),
        "Weight of `loss_ce`, and of the class probability in the matching cost.",
    ),
    Key(
        "MODEL.MASK_FORMER.DICE_WEIGHT",
        1.0,
        at_least(0),
        "Weight of `loss_dice`, and of Dice in the matching cost.",
    ),
    Key(
        "MODEL.MASK_FORMER.MASK_WEIGHT",
        20.0,
        at_least(0),
        "Weight of `loss_mask`, and of the BCE in the matching cost. The three box losses are "
        "multiplied by it too.",
    ),
    Key(
        "MODEL.MASK_FORMER.NHEADS",
        8,
        integer(1),
        "Attention heads of the decoder and of the pixel decoder's encoder.",
    ),
    Key(
        "MODEL.MASK_FORMER.DROPOUT",
        0.1,
        DROP_RATE,
        "Dropout of the pixel decoder's encoder. The video decoder has none.",
    ),
    Key(
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD",
        2048,
        integer(1),
        "Width of the feed-forward blocks of the decoder.",
    ),
    Key(
        "MODEL.MASK_FORMER.DEC_LAYERS",
        6,
        integer(2),
        "Number of decoder outputs: the decoder layers, and one for the prediction from the "
        "learned queries before the first layer.",
    ),
    Key(
        "MODEL.MASK_FORMER.PRE_NORM",
        False,
        BOOLEAN,
        "LayerNorm before (True) or after (False) each block of the decoder.",
    ),
    Key(
        "MODEL.MASK_FORMER.HIDDEN_DIM",
        256,
        integer(4),
        "Channels of the queries and of the decoder; a multiple of 4 and of `NHEADS`.",
    ),
    Key("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 100, integer(1), "Number of queries, Q."),
    Key(
        "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ",
        False,
        BOOLEAN,
        "Put a 1x1 convolution before the decoder even where the channels agree already.",
    ),
    Key(
        "MODEL.MASK_FORMER.SIZE_DIVISIBILITY",
        32,
        integer(-1),
        "Frames are padded at the right and at the bottom to a multiple of this, which is a "
        "multiple of MODEL.SEM_SEG_HEAD.COMMON_STRIDE. 0 or -1: the largest stride of the "
        "backbone.",
    ),
    Key(
        "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME",
        "MultiScaleMaskedTransformerDecoder",
        NAME,
        "Registered name of the decoder; the project's own is "
        "`VideoMultiScaleMaskedTransformerDecoder`.",
    ),
    Key(
        "MODEL.MASK_FORMER.TRAIN_NUM_POINTS",
        112 * 112,
        integer(1),
        "Points sampled in each mask for the losses and matching costs of objects with masks.",
    ),
    Key(
        "MODEL.MASK_FORMER.OVERSAMPLE_RATIO",
        3.0,
        at_least(1),
        "Candidates per point when uncertain points are chosen; k of PointRend.",
    ),
    Key(
        "MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO",
        0.75,
        FRACTION,
        "Share of the points that are chosen by uncertainty; beta of PointRend.",
    ),
)

_PIXEL_DECODER = (
    Key("MODEL.SEM_SEG_HEAD.MASK_DIM", 256, integer(1), "Channels of the mask features."),
    Key(
        "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS",
        0,
        integer(0),
        "Layers of the deformable encoder of the pixel decoder.",
    ),
    Key(
        "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_DIM_FEEDFORWARD",
        1024,
        integer(1),
        "Width of the feed-forward blocks of that encoder.",
    ),
    Key(
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME",
        "BasePixelDecoder",
        NAME,
        "Registered name of the pixel decoder; the project's own is `MSDeformAttnPixelDecoder`.",
    ),
    Key(
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES",
        ["res3", "res4", "res5"],
        NAMES,
        "Feature maps that the deformable encoder takes; some of `IN_FEATURES`.",
    ),
)

_SWIN = (
    Key(
        "MODEL.SWIN.PRETRAIN_IMG_SIZE",
        224,
        integer(1),
        "Side of the images of the pre-training, in pixels; read with `APE` only.",
    ),
    Key("MODEL.SWIN.PATCH_SIZE", 4, integer(1), "Side of a token, in pixels."),
    Key("MODEL.SWIN.EMBED_DIM", 96, integer(1), "Channels of the first stage."),
    Key("MODEL.SWIN.DEPTHS", [2, 2, 6, 2], _POSITIVE_INTEGERS, "Blocks of each stage."),
    Key(
        "MODEL.SWIN.NUM_HEADS", [3, 6, 12, 24], _POSITIVE_INTEGERS, "Attention heads of each stage."
    ),
    Key("MODEL.SWIN.WINDOW_SIZE", 7, integer(1), "Side of an attention window, in tokens."),
    Key(
        "MODEL.SWIN.MLP_RATIO",
        4.0,
        above(0),
        "Width of the feed-forward blocks divided by the channels of the stage.",
    ),
    Key("MODEL.SWIN.QKV_BIAS", True, BOOLEAN, "Bias of the query, key and value projections."),
    Key(
        "MODEL.SWIN.QK_SCALE",
        None,
        optional(above(0)),
        "Factor on the attention logits; None: 1 / sqrt(channels of a head).",
    ),
    Key("MODEL.SWIN.DROP_RATE", 0.0, DROP_RATE, "Dropout of the projections and of the MLPs."),
    Key("MODEL.SWIN.ATTN_DROP_RATE", 0.0, DROP_RATE, "Dropout of the attention weights."),
    Key(
        "MODEL.SWIN.DROP_PATH_RATE",
        0.3,
        DROP_RATE,
        "Probability of skipping the last block (stochastic depth); it rises linearly from 0 at "
        "the first.",
    ),
    Key("MODEL.SWIN.APE", False, BOOLEAN, "Add a learned absolute position embedding."),
    Key("MODEL.SWIN.PATCH_NORM", True, BOOLEAN, "LayerNorm after the patch embedding."),
    Key(
        "MODEL.SWIN.OUT_FEATURES",
        ["res2", "res3", "res4", "res5"],
        NAMES,
        "Feature maps that the backbone gives.",
    ),
    Key(
        "MODEL.SWIN.USE_CHECKPOINT",
        False,
        BOOLEAN,
        "Compute the activations of a block again in the backward pass: less memory, more time.",
    ),
)

ROWS: tuple[Key, ...] = (*_DETECTRON2, *_MASK_FORMER, *_PIXEL_DECODER, *_SWIN)
