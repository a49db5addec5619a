"""Reading configs: files, overrides, messages."""

from __future__ import annotations

import logging

import pytest
import torch

from maskfreevis_ext.config import load_config
from maskfreevis_ext.errors import ConfigError
from tests.helpers.training import CONFIG, ROOT

CONFIGS = sorted(
    path
    for path in (ROOT / "configs").rglob("*.yaml")
    if path.parent.name != "experiments"  # grids of configs; see tests/experiments
)

# The keys that a MaskFreeVIS YAML file sets, each with a value of the type that it uses there.
REFERENCE_YAML = """
MODEL:
  WEIGHTS: "./some/file.pkl"
  META_ARCHITECTURE: "VideoMaskFormer"
  MASK_ON: True
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  BACKBONE: {FREEZE_AT: 0, NAME: "D2SwinTransformer"}
  RESNETS:
    DEPTH: 50
    STEM_TYPE: "basic"
    STEM_OUT_CHANNELS: 64
    STRIDE_IN_1X1: False
    OUT_FEATURES: ["res2", "res3", "res4", "res5"]
    RES5_MULTI_GRID: [1, 1, 1]
  SWIN:
    EMBED_DIM: 192
    DEPTHS: [2, 2, 18, 2]
    NUM_HEADS: [6, 12, 24, 48]
    WINDOW_SIZE: 12
    APE: False
    DROP_PATH_RATE: 0.3
    PATCH_NORM: True
    PRETRAIN_IMG_SIZE: 384
  SEM_SEG_HEAD:
    NAME: "MaskFormerHead"
    IGNORE_VALUE: 255
    NUM_CLASSES: 40
    LOSS_WEIGHT: 1.0
    CONVS_DIM: 256
    MASK_DIM: 256
    NORM: "GN"
    PIXEL_DECODER_NAME: "MSDeformAttnPixelDecoder"
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
    DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES: ["res3", "res4", "res5"]
    COMMON_STRIDE: 4
    TRANSFORMER_ENC_LAYERS: 6
  MASK_FORMER:
    TRANSFORMER_DECODER_NAME: "VideoMultiScaleMaskedTransformerDecoder"
    TRANSFORMER_IN_FEATURE: "multi_scale_pixel_decoder"
    DEEP_SUPERVISION: True
    NO_OBJECT_WEIGHT: 0.1
    CLASS_WEIGHT: 2.0
    MASK_WEIGHT: 5.0
    DICE_WEIGHT: 5.0
    HIDDEN_DIM: 256
    NUM_OBJECT_QUERIES: 100
    NHEADS: 8
    DROPOUT: 0.0
    DIM_FEEDFORWARD: 2048
    ENC_LAYERS: 0
    PRE_NORM: False
    ENFORCE_INPUT_PROJ: False
    SIZE_DIVISIBILITY: 32
    DEC_LAYERS: 10
    TRAIN_NUM_POINTS: 20000
    OVERSAMPLE_RATIO: 3.0
    IMPORTANCE_SAMPLE_RATIO: 0.75
    TEST:
      SEMANTIC_ON: False
      INSTANCE_ON: True
      PANOPTIC_ON: False
      OVERLAP_THRESHOLD: 0.8
      OBJECT_MASK_THRESHOLD: 0.8
DATASETS:
  TRAIN: ("coco_2017_train_fake", "ytvis_2019_train",)
  TEST: ("ytvis_2019_val",)
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.0001
  STEPS: (37500,)
  MAX_ITER: 70000
  WARMUP_FACTOR: 1.0
  WARMUP_ITERS: 10
  WEIGHT_DECAY: 0.05
  OPTIMIZER: "ADAMW"
  BACKBONE_MULTIPLIER: 0.1
  CLIP_GRADIENTS: {ENABLED: True, CLIP_TYPE: "full_model", CLIP_VALUE: 0.01, NORM_TYPE: 2.0}
  AMP: {ENABLED: True}
INPUT:
  MIN_SIZE_TRAIN_SAMPLING: "choice_by_clip"
  RANDOM_FLIP: "flip_by_clip"
  AUGMENTATIONS: []
  MIN_SIZE_TRAIN: (360, 480)
  MIN_SIZE_TEST: 480
  CROP:
    ENABLED: False
    TYPE: "absolute_range"
    SIZE: (600, 720)
  FORMAT: "RGB"
  PSEUDO:
    SAMPLING_FRAME_NUM: 4
    SAMPLING_FRAME_RANGE: 20
    AUGMENTATIONS: ['rotation']
    MIN_SIZE_TRAIN: (288, 320, 352, 384, 416, 448, 480, 512)
    MAX_SIZE_TRAIN: 768
    CROP:
      ENABLED: True
      TYPE: "absolute_range"
      SIZE: (384, 600)
  LSJ_AUG: {ENABLED: False, IMAGE_SIZE: 768, MIN_SCALE: 0.1, MAX_SCALE: 2.0}
TEST: {EVAL_PERIOD: 0}
DATALOADER: {FILTER_EMPTY_ANNOTATIONS: True, NUM_WORKERS: 4}
OUTPUT_DIR: './some_output/'
SEED: 29118357
VERSION: 2
"""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_every_config_of_the_project_loads(path):
    cfg = load_config(str(path))
    assert cfg.MODEL.META_ARCHITECTURE == "VideoMaskFormer"
    assert cfg.is_frozen()


def test_reference_yaml_loads_unchanged(tmp_path):
    path = tmp_path / "reference.yaml"
    path.write_text(REFERENCE_YAML)
    cfg = load_config(str(path))
    assert cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES == 100
    assert cfg.MODEL.SWIN.DEPTHS == [2, 2, 18, 2]
    assert tuple(cfg.DATASETS.TRAIN) == ("coco_2017_train_fake", "ytvis_2019_train")
    assert tuple(cfg.SOLVER.STEPS) == (37500,)
    assert cfg.INPUT.PSEUDO.CROP.SIZE == (384, 600)


def test_published_values():
    folder = ROOT / "configs" / "youtubevis_2019"
    r50 = load_config(str(folder / "maskfreevis_R50_bs16.yaml"))
    assert (r50.SOLVER.MAX_ITER, tuple(r50.SOLVER.STEPS)) == (6000, (4000,))
    assert (r50.INPUT.SAMPLING_FRAME_NUM, r50.INPUT.SUPERVISION) == (3, "box")
    tube = load_config(str(folder / "maskfreevis_R50_bs16_T5_cycle.yaml"))
    assert (tube.INPUT.SAMPLING_FRAME_NUM, tube.MODEL.MASKFREE.TEMPORAL.PAIRS) == (5, "cycle")
    swin = load_config(str(folder / "maskfreevis_SwinL_bs8_joint.yaml"))
    assert (swin.SOLVER.MAX_ITER, swin.SOLVER.IMS_PER_BATCH, swin.SOLVER.BASE_LR) == (
        140000,
        8,
        5e-5,
    )
    assert (swin.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES, swin.INPUT.MIN_SIZE_TEST) == (200, 480)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["SOLVER.BASE_LRR", "1.0"], ["the command line", "SOLVER.BASE_LRR", "SOLVER.BASE_LR"]),
        (["SOLVER.BASE_LR", "fast"], ["SOLVER.BASE_LR", "float", "fast", "str"]),
        (["SOLVER.BASE_LR"], ["KEY VALUE", "SOLVER.BASE_LR"]),
        (["SOLVER.BASE_LR", "0.0"], ["SOLVER.BASE_LR", "more than 0", "0.0"]),
        (
            ["INPUT.SUPERVISION", "boxes"],
            ["INPUT.SUPERVISION", "box, mask, teacher, data", "'boxes'"],
        ),
        (["MODEL.BACKBONE.NAME", "vgg"], ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "vgg"]),
        (["MODEL.META_ARCHITECTURE", "X"], ["MODEL.META_ARCHITECTURE", "VideoMaskFormer", "'X'"]),
        (["MODEL.MASK_FORMER.HIDDEN_DIM", "30"], ["HIDDEN_DIM", "NHEADS", "30"]),
        (["MODEL.MASK_FORMER.SIZE_DIVISIBILITY", "26"], ["SIZE_DIVISIBILITY", "4", "26"]),
        (["MODEL.MASKFREE.TEMPORAL.TOP_K", "10"], ["TOP_K", "9 positions", "10"]),
        (["MODEL.MASKFREE.TEMPORAL.PAIRS", "ring"], ["PAIRS", "cycle, all, chain", "'ring'"]),
        (["MODEL.MASKFREE.PAIRWISE.THRESHOLD", "1.5"], ["THRESHOLD", "(0, 1]", "1.5"]),
        (
            ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "256"],
            ["RES2_OUT_CHANNELS", "64", "256"],
        ),
        (["MODEL.RESNETS.OUT_FEATURES", "['res2']"], ["OUT_FEATURES", "res3"]),
        (["SOLVER.STEPS", "(5, 4)"], ["SOLVER.STEPS", "rising", "(5, 4)"]),
        (["SOLVER.LR_SCHEDULER_NAME", "Step"], ["LR_SCHEDULER_NAME", "WarmupPolyLR", "'Step'"]),
        (["SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "-1.0"], ["CLIP_VALUE", "more than 0", "-1.0"]),
        (["MODEL.DEVICE", "gpu"], ["MODEL.DEVICE", "cuda", "'gpu'"]),
        (["INPUT.DATASETS", "[['a', 'b']]"], ["INPUT.DATASETS", "['a', 'b']"]),
        (["_BASE_", "x.yaml"], ["_BASE_", "files"]),
    ],
)
def test_bad_override_names_key_value_and_expectation(overrides, parts):
    with pytest.raises(ConfigError) as error:
        load_config(CONFIG, overrides)
    for part in parts:
        assert part in str(error.value)


def test_unknown_key_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("SOLVER:\n  BASE_LRATE: 0.1\n")
    with pytest.raises(ConfigError, match=r"a\.yaml.*SOLVER\.BASE_LRATE.*SOLVER\.BASE_LR"):
        load_config(str(path))


def test_gpu_without_a_gpu_falls_back_to_the_cpu_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING, logger="maskfreevis_ext"):
        options = ["MODEL.DEVICE", "cuda", "SOLVER.AMP.ENABLED", "True"]
        cfg = load_config(CONFIG, options)
    assert cfg.MODEL.DEVICE == "cpu"
    assert not cfg.SOLVER.AMP.ENABLED
    assert "no GPU" in caplog.text
    assert "SOLVER.AMP.DTYPE float16: float16 needs a GPU" in caplog.text
    assert "Training in float32 on cpu" in caplog.text


@pytest.mark.parametrize("is_made_for_it", [False, True])
def test_bfloat16_stays_on_where_the_processor_has_it(monkeypatch, caplog, is_made_for_it):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": is_made_for_it})
    options = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "bfloat16", "TEST.AMP", "bfloat16"]
    with caplog.at_level(logging.WARNING, logger="maskfreevis_ext"):
        cfg = load_config(CONFIG, options, device="cpu")
    assert cfg.SOLVER.AMP.ENABLED == is_made_for_it
    assert cfg.TEST.AMP == ("bfloat16" if is_made_for_it else "off")
    for text in ("SOLVER.AMP.DTYPE bfloat16: the cpu device has no", "TEST.AMP bfloat16: the cpu"):
        assert (text in caplog.text) == (not is_made_for_it)


def test_device_argument_wins():
    assert load_config(CONFIG, ["MODEL.DEVICE", "cuda"], device="cpu").MODEL.DEVICE == "cpu"
