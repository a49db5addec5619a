"""Published weights, made here at tiny size under their published names, become the model's."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor

from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.engine.convert_weights import convert, read_weights, write_weights
from maskfreevis_ext.errors import CheckpointError, ConfigError
from tests.helpers.configs import tiny_cfg

NORM = ("weight", "bias", "running_mean", "running_var")
SWIN = (
    *("MODEL.BACKBONE.NAME", "D2SwinTransformer", "MODEL.SWIN.EMBED_DIM", 8),
    *("MODEL.SWIN.DEPTHS", [2, 1, 1, 1], "MODEL.SWIN.NUM_HEADS", [1, 2, 2, 2]),
    *("MODEL.SWIN.WINDOW_SIZE", 4),
)


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def torchvision_resnet50() -> dict[str, Tensor]:
    """Names of torchvision's ResNet-50; the widths are those of ``tiny_cfg``."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (8, 3, 7, 7)}

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.{part}": (width,) for part in NORM})
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", 8)
    before = 8
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        width, out = 4 * 2 ** (layer - 1), 16 * 2 ** (layer - 1)
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            for conv, shape in enumerate(
                ((width, before, 1, 1), (width, width, 3, 3), (out, width, 1, 1)), start=1
            ):
                shapes[f"{name}.conv{conv}.weight"] = shape
                norm(f"{name}.bn{conv}", shape[0])
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (out, before, 1, 1)
                norm(f"{name}.downsample.1", out)
            before = out
    return _random({**shapes, "fc.weight": (10, before), "fc.bias": (10,)})


def official_swin() -> dict[str, Tensor]:
    """Names of the official classifier; the sizes are those of ``SWIN``."""
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (8, 3, 4, 4),
        "patch_embed.proj.bias": (8,),
    }

    def pair(name: str, rows: int, columns: int | None = None) -> None:
        shapes[f"{name}.weight"] = (rows,) if columns is None else (rows, columns)
        shapes[f"{name}.bias"] = (rows,)

    pair("patch_embed.norm", 8)
    for layer, (depth, heads) in enumerate(zip((2, 1, 1, 1), (1, 2, 2, 2), strict=True)):
        dim = 8 * 2**layer
        for block in range(depth):
            name = f"layers.{layer}.blocks.{block}"
            if block % 2:
                shapes[f"{name}.attn_mask"] = (4, 16, 16)
            pair(f"{name}.norm1", dim)
            shapes[f"{name}.attn.relative_position_bias_table"] = (49, heads)
            shapes[f"{name}.attn.relative_position_index"] = (16, 16)
            pair(f"{name}.attn.qkv", 3 * dim, dim)
            pair(f"{name}.attn.proj", dim, dim)
            pair(f"{name}.norm2", dim)
            pair(f"{name}.mlp.fc1", 4 * dim, dim)
            pair(f"{name}.mlp.fc2", dim, 4 * dim)
        if layer < 3:
            pair(f"layers.{layer}.downsample.norm", 4 * dim)
            shapes[f"layers.{layer}.downsample.reduction.weight"] = (2 * dim, 4 * dim)
    pair("norm", 64)
    pair("head", 10, 64)
    return _random(shapes)


def test_torchvision_fills_the_backbone(tmp_path):
    torch.save(torchvision_resnet50(), tmp_path / "resnet50.pth")
    weights = read_weights(str(tmp_path / "resnet50.pth"))[0]
    found = convert(weights, tiny_cfg(), "resnet50.pth")
    assert found.kind == "a ResNet of torchvision"
    assert found.weights["backbone.res3.0.shortcut.norm.bias"].equal(
        weights["layer2.0.downsample.1.bias"]
    )
    assert found.weights["backbone.stem.conv1.norm.weight"].equal(weights["bn1.weight"])
    assert not any(name.startswith("backbone.") for name in found.missing)
    assert not found.other_size
    assert {name for name in found.unused if "num_batches" not in name} == {"fc.weight", "fc.bias"}
    assert found.warnings == []
    assert "  backbone: 265 of 265" in found.lines()


def test_settings_that_do_not_suit_are_warned_of():
    cfg = tiny_cfg("MODEL.RESNETS.STRIDE_IN_1X1", True, "INPUT.FORMAT", "BGR")
    found = convert(torchvision_resnet50(), cfg, "x")
    assert len(found.warnings) == 2
    assert "such weights need MODEL.RESNETS.STRIDE_IN_1X1 False" in found.warnings[0]


@pytest.mark.parametrize("prefix", ["", "backbone.", "module."])
def test_swin_fills_the_backbone(tmp_path, prefix):
    weights = {prefix + name: value for name, value in official_swin().items()}
    if prefix == "backbone.":  # a detector has norms of its outputs
        weights |= {
            f"backbone.norm{i}.{part}": torch.ones(8 * 2**i) for i in range(4) for part in NORM[:2]
        }
    torch.save({"model": weights, "epoch": 3}, tmp_path / "swin.pth")
    found = convert(read_weights(str(tmp_path / "swin.pth"))[0], tiny_cfg(*SWIN), "swin.pth")
    assert found.kind == "a Swin Transformer"
    name = "layers.0.blocks.1.attn.relative_position_bias_table"
    assert found.weights[f"backbone.{name}"].equal(weights[prefix + name])
    lacking = {name for name in found.missing if name.startswith("backbone.")}
    norms = {f"backbone.norm{i}.{part}" for i in range(4) for part in ("weight", "bias")}
    assert lacking == (set() if prefix == "backbone." else norms)
    assert not found.other_size


def _mask2former(classes: int) -> dict[str, Tensor]:
    """An image checkpoint: names of the first release, and of the pixel decoder before it."""
    state = build_model(tiny_cfg("MODEL.SEM_SEG_HEAD.NUM_CLASSES", classes)).state_dict()
    state = {name: value for name, value in state.items() if name != "criterion._iter"}
    return {
        name.replace(".query_feat.", ".static_query.").replace(
            "sem_seg_head.pixel_decoder.mask_features", "sem_seg_head.mask_features"
        ): value
        for name, value in state.items()
    }


def _as_numpy(weights: dict[str, Tensor]) -> dict:
    return {name: value.numpy() for name, value in weights.items()}


@pytest.mark.parametrize("content", ["arrays", "tensors"])
def test_image_checkpoint_of_mask2former(tmp_path, content):
    weights = _mask2former(80)
    held = _as_numpy(weights) if content == "arrays" else weights
    path = tmp_path / "model_final_3c8ec9.pkl"
    path.write_bytes(pickle.dumps({"model": held, "__author__": "third_party"}))
    found = convert(read_weights(str(path))[0], tiny_cfg(), str(path))
    assert found.kind.startswith("a whole model")
    assert {name for name, _, _ in found.other_size} == {
        "sem_seg_head.predictor.class_embed.weight",
        "sem_seg_head.predictor.class_embed.bias",
        "criterion.empty_weight",
    }
    assert found.missing == ["criterion._iter"]
    assert not found.unused
    name = "sem_seg_head.predictor.query_feat.weight"
    assert found.weights[name].equal(weights[name.replace("query_feat", "static_query")])
    assert any("other size, left out: sem_seg_head.predictor.class" in x for x in found.lines())


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_output_is_taken_by_the_checkpointer(tmp_path, ending):
    """A MaskFreeVIS checkpoint with its optimizer, converted, fits wholly."""
    if ending == ".safetensors":
        pytest.importorskip("safetensors")
    source = build_model(tiny_cfg())
    content = {"model": source.state_dict(), "optimizer": {"state": {}}, "iteration": 5}
    torch.save(content, tmp_path / "in.pth")
    found = convert(read_weights(str(tmp_path / "in.pth"))[0], tiny_cfg(), "in.pth")
    assert found.missing == found.unused == []
    path = str(tmp_path / f"out{ending}")
    write_weights(found.weights, path)
    model = build_model(tiny_cfg())
    SafeCheckpointer(model, must_fit=True).load(path)
    for name, value in model.state_dict().items():
        assert value.equal(source.state_dict()[name]), name
    assert read_weights(path)[0].keys() == found.weights.keys()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_class_names_are_kept_where_there_are_weights_for_them(tmp_path, ending):
    path, names = str(tmp_path / f"out{ending}"), ["cat", "dog"]
    classifier = {"predictor.class_embed.weight": torch.ones(3, 4)}
    for weights, stored, expected in (
        (classifier, names, names),
        (classifier, None, None),
        (classifier, ["cat"], None),
        ({"backbone.stem.weight": torch.ones(1)}, names, None),
    ):
        write_weights(weights, path, stored)
        assert read_weights(path)[1] == expected
        assert read_weights(path)[0].keys() == weights.keys()


def test_checkpoint_that_is_replaced_is_no_longer_compared_with_the_manifest(tmp_path):
    model = torch.nn.Linear(1, 1)
    SafeCheckpointer(model, str(tmp_path)).save("model_final")
    path = str(tmp_path / "model_final.pth")
    write_weights({"weight": torch.ones(1, 1), "bias": torch.ones(1)}, path)
    SafeCheckpointer(model).load(path)
    assert model.bias.item() == 1


def test_what_cannot_be_used_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nothing fits the model of the config"):
        convert(official_swin(), tiny_cfg(), "swin.pth")
    with pytest.raises(CheckpointError, match=r"expected the names of .*; got a\.b, \.\.\."):
        convert({"a.b": torch.ones(1)}, tiny_cfg(), "x.pth")
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="expected tensors by name"):
        read_weights(str(tmp_path / "x.pth"))
    with pytest.raises(ConfigError, match=r"ends in \.pth or \.safetensors"):
        write_weights({}, Path("x.bin"))
