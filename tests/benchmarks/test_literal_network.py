"""The network in the structure of the reference gives the values of the package's."""

from __future__ import annotations

import torch
from detectron2.modeling import build_model

from benchmarks.literal.network import LiteralDecoder, LiteralResNet, use_literal_network
from tests.helpers.configs import tiny_cfg
from tests.helpers.fill import fill_module


def _models(*overrides: object) -> tuple[torch.nn.Module, torch.nn.Module]:
    cfg = tiny_cfg("MODEL.MASKFREE.DENSE_MASK_GRADIENTS", True, *overrides)
    ours, literal = build_model(cfg), build_model(cfg)
    fill_module(ours)
    literal.load_state_dict(ours.state_dict())
    use_literal_network(literal)
    assert isinstance(literal.backbone, LiteralResNet)
    assert isinstance(literal.sem_seg_head.predictor, LiteralDecoder)
    return ours, literal


def test_outputs_of_all_layers_and_gradients_agree() -> None:
    ours, literal = _models()
    torch.manual_seed(0)
    images = torch.randn(4, 3, 64, 96)
    found = []
    for model in (ours.train(), literal.train()):
        outputs = model.sem_seg_head(model.backbone(images), 2, return_aux=True)
        layers = [outputs, *outputs["aux_outputs"]]
        values = [layer[name] for layer in layers for name in ("pred_logits", "pred_masks")]
        torch.stack([value.square().mean() for value in values]).sum().backward()
        found.append([value.detach() for value in values])
    assert len(found[0]) == len(found[1]) == 2 * 4
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-3)
    for mine, other in zip(ours.parameters(), literal.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None)
        if mine.grad is not None:
            assert (mine.grad - other.grad).norm() <= 2e-2 * other.grad.norm() + 1e-5


def test_maps_agree_in_evaluation_and_with_basic_blocks() -> None:
    options = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)
    for model_options in ((), (*options, "MODEL.RESNETS.NORM", "BN")):
        ours, literal = _models(*model_options)
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            expected = ours.eval().sem_seg_head.pixel_decoder(ours.backbone(images))
            found = literal.eval().sem_seg_head.pixel_decoder(literal.backbone(images))
        torch.testing.assert_close(found[0], expected[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-3, atol=1e-4)
