"""Keys that config files of the reference or of Detectron2 set and that nothing reads here."""

from __future__ import annotations

from maskfreevis_ext.config.keys import FROM_DETECTRON2, Key, unread

_DEEPLAB_HEAD = "it belongs to DeepLab's semantic head"
_DEEPLAB_RESNET = "it belongs to DeepLab's ResNet"
_SEMANTIC = "it belongs to semantic segmentation heads"
_INSTANCES_ONLY = "the video model predicts instances, and nothing else"
_PANOPTIC = "it belongs to panoptic inference"
_LSJ = "large-scale jitter of clips has the keys INPUT.LSJ_AUG"

_MODEL = (
    unread(
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS",
        4,
        "the deformable attention always samples 4 points per level",
    ),
    unread(
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS",
        8,
        "the number of heads is MODEL.MASK_FORMER.NHEADS",
    ),
    unread("MODEL.SEM_SEG_HEAD.LOSS_TYPE", "hard_pixel_mining", _DEEPLAB_HEAD),
    unread("MODEL.SEM_SEG_HEAD.PROJECT_FEATURES", ["res2"], _DEEPLAB_HEAD),
    unread("MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [48], _DEEPLAB_HEAD),
    unread("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 256, _DEEPLAB_HEAD),
    unread("MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", [6, 12, 18], _DEEPLAB_HEAD),
    unread("MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", 0.1, _DEEPLAB_HEAD),
    unread("MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV", False, _DEEPLAB_HEAD),
    unread("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", FROM_DETECTRON2, _SEMANTIC),
    unread("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", FROM_DETECTRON2, _SEMANTIC),
    unread("MODEL.RESNETS.STEM_TYPE", "deeplab", f"{_DEEPLAB_RESNET}; the stem is Detectron2's"),
    unread("MODEL.RESNETS.RES4_DILATION", 1, _DEEPLAB_RESNET),
    unread("MODEL.RESNETS.RES5_MULTI_GRID", [1, 2, 4], _DEEPLAB_RESNET),
    unread(
        "MODEL.MASK_FORMER.ENC_LAYERS",
        0,
        "the encoder is that of the pixel decoder (MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS)",
    ),
    unread(
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE",
        "res5",
        "the decoder always takes the multi-scale features",
    ),
    unread("MODEL.MASK_FORMER.TEST.SEMANTIC_ON", True, _INSTANCES_ONLY),
    unread("MODEL.MASK_FORMER.TEST.INSTANCE_ON", False, _INSTANCES_ONLY),
    unread("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False, _INSTANCES_ONLY),
    unread("MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD", 0.0, _PANOPTIC),
    unread("MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD", 0.0, _PANOPTIC),
    unread(
        "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE",
        False,
        "it belongs to semantic inference",
    ),
)

_INPUT = (
    unread(
        "INPUT.DATASET_MAPPER_NAME",
        "mask_former_semantic",
        "the mapper follows from the data set",
    ),
    unread(
        "INPUT.COLOR_AUG_SSD",
        False,
        "it belongs to image segmentation (see INPUT.AUGMENTATIONS)",
    ),
    unread("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 1.0, "it belongs to semantic segmentation"),
    unread(
        "INPUT.SIZE_DIVISIBILITY",
        -1,
        "frames are padded by the model (MODEL.MASK_FORMER.SIZE_DIVISIBILITY)",
    ),
    unread("INPUT.IMAGE_SIZE", 1024, _LSJ),
    unread("INPUT.MIN_SCALE", 0.1, _LSJ),
    unread("INPUT.MAX_SCALE", 2.0, _LSJ),
)

# Keys of Detectron2 that work with its own models, and that one may expect to work here too.
_DETECTRON2 = (
    unread("MODEL.MASK_ON", FROM_DETECTRON2, "masks are always predicted"),
    unread("MODEL.KEYPOINT_ON", FROM_DETECTRON2, "there are no keypoints"),
    unread(
        "TEST.DETECTIONS_PER_IMAGE",
        FROM_DETECTRON2,
        "the number of tracks of a video is MODEL.MASKFREE.TEST.NUM_TRACKS",
    ),
    unread("TEST.AUG.ENABLED", FROM_DETECTRON2, "there is no test-time augmentation"),
    unread(
        "INPUT.MASK_FORMAT", FROM_DETECTRON2, "the format of the masks is that of the JSON file"
    ),
    unread(
        "DATALOADER.REPEAT_THRESHOLD",
        FROM_DETECTRON2,
        "videos are drawn by DATALOADER.SAMPLER_TRAIN TrainingSampler only",
    ),
    unread(
        "SOLVER.BIAS_LR_FACTOR", FROM_DETECTRON2, "biases have the learning rate of their module"
    ),
    unread(
        "SOLVER.WEIGHT_DECAY_BIAS", FROM_DETECTRON2, "biases have the weight decay of their module"
    ),
)

ROWS: tuple[Key, ...] = (*_MODEL, *_INPUT, *_DETECTRON2)
