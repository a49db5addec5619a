"""Checks of single keys and of keys against each other, on configs that were set directly."""

from __future__ import annotations

import math

import pytest
import torch

from maskfreevis_ext.config import default_config, load_config, registered_keys, validate
from maskfreevis_ext.errors import ConfigError
from tests.helpers.configs import tiny_cfg
from tests.helpers.training import CONFIG

MULTIMASK = ("MODEL.MULTIMASK.ENABLED", True)
SPATIAL = ("MODEL.SPATIAL_MASK.ENABLED", True)
CROP = ("INPUT.CROP.ENABLED", True)
LEVELS = "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES"


def _set(cfg, name, value):
    *sections, last = name.split(".")
    node = cfg
    for section in sections:
        node = node[section]
    node[last] = value


@pytest.mark.parametrize("value", [math.nan, math.inf, "x", None, -5, True, [], (), object()])
def test_no_value_breaks_a_check(value):
    for key in registered_keys():
        assert key.check.test(value) in (True, False), key.name


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MODEL.DEVICE", "mps", r"cpu, cuda or cuda:N.*mps.*got 'mps'"),
        ("MODEL.DEVICE", "xpu", "cpu, cuda"),
        ("MODEL.MASKFREE.LAB_CHANNEL_ORDER", "rgb", "correct, reversed"),
        ("MODEL.MASKFREE.PAIRWISE.THRESHOLD", 0.0, r"\(0, 1\]"),
        ("MODEL.MASKFREE.TEMPORAL.THRESHOLD", 0.0, r"\(0, 1\]"),
        ("MODEL.MASKFREE.TEMPORAL.PAIRS", "stride-0", "stride-k"),
        ("MODEL.MASKFREE.TEMPORAL.PATCH_SIZE", 2, "an odd integer"),
        ("MODEL.MASKFREE.TEMPORAL.TOP_K", 0, "an integer, at least 1"),
        ("MODEL.MASKFREE.MATCHER.NONFINITE_COST", "skip", "error, replace"),
        ("MODEL.MASK_FORMER.DEC_LAYERS", 1, "at least 2"),
        ("MODEL.MASK_FORMER.SIZE_DIVISIBILITY", -2, "at least -1"),
        ("MODEL.SPATIAL_MASK.LOSS.WEIGHT", -1.0, "at least 0"),
        ("MODEL.SPATIAL_MASK.LOSS.DICE", math.inf, "at least 0, got inf"),
        ("MODEL.SPATIAL_MASK.LOSS.USE_TV", 1, "True or False"),
        ("MODEL.SPATIAL_MASK.LOSS.BOX_MODE", "strong", "skip, weak"),
        ("MODEL.SPATIAL_MASK.LOSS.POS_WEIGHT", -1.0, "at least 0"),
        ("SOLVER.AMP.DTYPE", "float32", "float16, bfloat16"),
        ("SOLVER.IMS_PER_BATCH", True, "an integer"),
        ("INPUT.DATASETS", [["a", "b.json", ""]], "image root"),
        ("INPUT.AUGMENTATIONS", ["blur"], "brightness"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING", "any", "range"),
        ("INPUT.CROP.TYPE", "square", "relative"),
    ],
)
def test_value_that_is_not_allowed(name, value, expected):
    cfg = tiny_cfg()
    _set(cfg, name, value)
    with pytest.raises(ConfigError, match=f"^{name}: expected .*{expected}"):
        validate(cfg)


@pytest.mark.parametrize(
    ("options", "key", "expected"),
    [
        (["TEST.WINDOW.SIZE", 4, "TEST.WINDOW.STRIDE", 5], 2, "at most 4 (TEST.WINDOW.SIZE"),
        ([*MULTIMASK, "MODEL.MASKFREE.DENSE_MASK_GRADIENTS", True], 2, "MODEL.MULTIMASK.ENABLED"),
        ([*SPATIAL, "MODEL.SPATIAL_MASK.IN_LEVEL", "res2"], 2, "res3, res4, res5"),
        ([*SPATIAL, "MODEL.SPATIAL_MASK.LAYERS", [0, 3]], 2, "layers 0 to 2"),
        ([*SPATIAL, "MODEL.SPATIAL_MASK.HOLD_START", 5], "MODEL.SPATIAL_MASK.HOLD_END", "5"),
        (["MODEL.MASK_FORMER.HIDDEN_DIM", 34, "MODEL.MASK_FORMER.NHEADS", 2], 0, "multiple of 4"),
        (["MODEL.MASK_FORMER.HIDDEN_DIM", 36, "MODEL.MASK_FORMER.NHEADS", 8], 0, "NHEADS"),
        (["MODEL.SEM_SEG_HEAD.CONVS_DIM", 30], 0, "NHEADS"),
        (
            ["MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 5],
            "MODEL.MASK_FORMER.SIZE_DIVISIBILITY",
            "COMMON_STRIDE",
        ),
        (
            ["MODEL.BACKBONE.NAME", "D2SwinTransformer", "MODEL.SWIN.OUT_FEATURES", ["res5"]],
            2,
            "res2",
        ),
        (["MODEL.MASKFREE.TEMPORAL.SEARCH_RADIUS", 0], "MODEL.MASKFREE.TEMPORAL.TOP_K", "1 pos"),
        (
            ["INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", (3, 4, 5)],
            2,
            "two sizes",
        ),
        ([*CROP, "INPUT.CROP.TYPE", "relative", "INPUT.CROP.SIZE", [2.0, 0.5]], 4, "(0, 1]"),
        ([*CROP, "INPUT.CROP.TYPE", "absolute_range", "INPUT.CROP.SIZE", [9, 5]], 4, "greatest"),
    ],
)
def test_keys_that_do_not_go_together(options, key, expected):
    cfg = tiny_cfg(*options)
    with pytest.raises(ConfigError) as error:
        validate(cfg)
    assert str(error.value).startswith(options[key] if isinstance(key, int) else key)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        ["MODEL.SPATIAL_MASK.IN_LEVEL", "res2"],  # the head is off
        [LEVELS, ["res4", "res5"]],
        ["MODEL.MASK_FORMER.SIZE_DIVISIBILITY", -1],
        ["MODEL.MASK_FORMER.SIZE_DIVISIBILITY", 0],
        [*SPATIAL, "MODEL.SPATIAL_MASK.LAYERS", [0, 2]],
        ["MODEL.MASKFREE.DENSE_MASK_GRADIENTS", True],
        ["INPUT.CROP.TYPE", "relative", "INPUT.CROP.SIZE", [2.0, 0.5]],
        ["SOLVER.AMP.DTYPE", "bfloat16"],
        ["MODEL.SPATIAL_MASK.LOSS.POS_WEIGHT", 0.0],
    ],
)
def test_values_that_are_allowed(options):
    validate(tiny_cfg(*options))


def test_default_architecture_of_detectron2_is_refused():
    with pytest.raises(ConfigError, match=r"MODEL\.META_ARCHITECTURE.*VideoMaskFormer"):
        validate(default_config())


def test_device_number_is_kept(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_config(CONFIG, ["MODEL.DEVICE", "cuda:1"]).MODEL.DEVICE == "cuda:1"
    assert load_config(CONFIG, device="cuda").MODEL.DEVICE == "cuda"
