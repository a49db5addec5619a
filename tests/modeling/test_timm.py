"""The door to timm, tried with a stand-in of the same interface where timm is absent."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_backbone
from torch import nn

from maskfreevis_ext.config import default_config
from maskfreevis_ext.errors import ConfigError


class _Features(nn.Module):
    """Maps of the strides 2, 4, 8, 16, 16, 32; the last has its channels last."""

    strides, widths = (2, 4, 8, 16, 16, 32), (3, 4, 5, 6, 7, 8)

    def __init__(self) -> None:
        super().__init__()
        self.feature_info = SimpleNamespace(
            reduction=lambda: list(self.strides), channels=lambda: list(self.widths)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        height, width = x.shape[-2:]
        maps = [
            torch.full((len(x), c, height // s, width // s), float(i))
            for i, (s, c) in enumerate(zip(self.strides, self.widths, strict=True))
        ]
        return [*maps[:-1], maps[-1].permute(0, 2, 3, 1)]


@pytest.fixture
def config(monkeypatch):
    asked = []

    def create_model(name: str, **kwargs: object) -> nn.Module:
        asked.append((name, kwargs))
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        return _Features()

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    cfg = default_config()
    cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    cfg.MODEL.TIMM.NAME = "tiny"
    cfg.asked = asked
    return cfg


def test_maps_are_named_by_their_stride(config) -> None:
    backbone = build_backbone(config)
    outputs = backbone(torch.zeros(2, 3, 64, 96))
    shapes = {name: tuple(x.shape) for name, x in outputs.items()}
    assert shapes == {
        "res2": (2, 4, 16, 24),
        "res3": (2, 5, 8, 12),
        "res4": (2, 7, 4, 6),
        "res5": (2, 8, 2, 3),
    }
    for name, spec in backbone.output_shape().items():
        assert outputs[name].shape[1] == spec.channels
    assert backbone.size_divisibility == 32


@pytest.mark.parametrize(("weights", "pretrained"), [("", True), ("model.pth", False)])
def test_weights_are_fetched_only_where_none_are_given(
    config, weights: str, pretrained: bool
) -> None:
    config.MODEL.TIMM.PRETRAINED = True
    config.MODEL.WEIGHTS = weights
    build_backbone(config)
    assert config.asked == [("tiny", {"pretrained": pretrained, "features_only": True})]


def test_unknown_model_is_told(config) -> None:
    config.MODEL.TIMM.NAME = "no_such_model"
    with pytest.raises(ConfigError, match=r"MODEL\.TIMM\.NAME.*no_such_model"):
        build_backbone(config)


def test_missing_stride_is_told(config, monkeypatch) -> None:
    monkeypatch.setattr(_Features, "strides", (2, 4, 8, 16, 16, 16))
    with pytest.raises(ConfigError, match=r"strides \[32\], got \[2, 4"):
        build_backbone(config)


def test_unknown_output_is_told(config) -> None:
    config.MODEL.TIMM.OUT_FEATURES = ["res9"]
    with pytest.raises(ConfigError, match=r"OUT_FEATURES.*res9"):
        build_backbone(config)


def test_absent_library_is_told(config, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="pip install timm"):
        build_backbone(config)
