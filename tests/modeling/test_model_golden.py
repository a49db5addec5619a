"""The network against stored outputs and state dicts of the reference implementation.

The parameters are filled by a rule (``tests/helpers/fill.py``), so that no weights are stored.
Features are stored for some channels, masks for some queries.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from tests.helpers.configs import reference_cfg
from tests.helpers.fill import checksum, fill_module
from tests.helpers.golden import load_golden

#: Largest difference allowed, as a part of the largest value.
TOLERANCE = 1e-4
#: Sum and sum of squares of all filled parameters.
CHECKSUMS = {
    "r50": (53844.83719076476, 215784.25855287848),
    "swinl": (55114.34052615485, 458717.5364284913),
}


def _filled(backbone: str) -> nn.Module:
    model = build_model(reference_cfg(backbone)).eval()
    fill_module(model)
    assert checksum(model.state_dict()) == pytest.approx(CHECKSUMS[backbone], rel=1e-9)
    return model


@pytest.fixture(scope="module")
def r50() -> nn.Module:
    """ResNet-50 model with filled parameters."""
    return _filled("r50")


def _assert_near(
    ours: Tensor, expected: np.ndarray, what: str, tolerance: float = TOLERANCE
) -> None:
    reference = torch.from_numpy(expected).double()
    assert ours.shape == reference.shape, what
    difference = (ours.double() - reference).abs().max() / reference.abs().max()
    assert difference < tolerance, f"{what}: {difference:.2e}"


@torch.no_grad()
def _check_network(model: nn.Module, golden: dict[str, np.ndarray], stride: int) -> None:
    """Compare what each part gives; the stored channels are 0 and ``stride``."""
    frames = torch.from_numpy(golden["images"])
    num_frames, (height, width) = frames.shape[0], frames.shape[-2:]
    images = torch.zeros(num_frames, 3, *model._padded_size([(height, width)]))
    images[..., :height, :width] = model._normalize(frames)
    features = model.backbone(images)
    for name in ("res2", "res3", "res4", "res5"):
        _assert_near(features[name][:, : 2 * stride : stride], golden[f"feat_{name}"], name)
    mask_features, maps = model.sem_seg_head.pixel_decoder(features)
    _assert_near(mask_features[:, ::128], golden["mask_features"], "mask_features")
    for k, level in enumerate(maps):
        _assert_near(level[:, ::128], golden[f"multi_scale_{k}"], f"multi_scale_{k}")
    outputs = model.sem_seg_head(features, num_frames, return_aux=True)
    _assert_near(outputs["pred_logits"], golden["pred_logits"], "pred_logits")
    masks = outputs["pred_masks"][:, :: int(golden["query_step"])]
    _assert_near(masks, golden["pred_masks"], "pred_masks")
    logits = torch.stack([output["pred_logits"][:, ::20] for output in outputs["aux_outputs"]])
    _assert_near(logits, golden["aux_pred_logits"], "aux_pred_logits")
    masks = torch.stack([output["pred_masks"][:, ::80] for output in outputs["aux_outputs"][::4]])
    # Stored in half precision for Swin.
    is_half = golden["aux_pred_masks"].dtype == np.float16
    _assert_near(masks, golden["aux_pred_masks"], "aux_pred_masks", 1e-3 if is_half else TOLERANCE)


def _check_inference(model: nn.Module, golden: dict[str, np.ndarray]) -> None:
    height, width = golden["infer_size"].tolist()
    video = {"image": list(torch.from_numpy(golden["images"])), "height": height, "width": width}
    result = model([video])[0]
    assert result["pred_scores"] == pytest.approx(golden["infer_scores"].tolist(), rel=TOLERANCE)
    assert result["pred_labels"] == golden["infer_labels"].tolist()
    expected = np.unpackbits(golden["infer_masks_packed"], axis=-1)[..., :width].astype(bool)
    # Logits within rounding of zero may fall on either side.
    assert (torch.stack(result["pred_masks"]).numpy() != expected).mean() < 1e-4


@pytest.mark.parametrize("name", ["model_r50_eval_T3", "model_r50_eval_T2_pad"])
def test_r50_equals_reference(r50: nn.Module, name: str) -> None:
    golden = load_golden(name)
    _check_network(r50, golden, stride=32)
    _check_inference(r50, golden)


@pytest.mark.slow
def test_swin_large_equals_reference() -> None:
    model, golden = _filled("swinl"), load_golden("model_swinl_eval_T2")
    _check_network(model, golden, stride=32)
    _check_inference(model, golden)


@pytest.mark.parametrize("backbone", ["r50", "r101", "swinl"])
def test_state_dict_equals_reference(backbone: str) -> None:
    cfg = reference_cfg(backbone)
    # Shapes need no memory.
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    ours = [f"{k} {','.join(map(str, v.shape))}" for k, v in model.state_dict().items()]
    assert ours == load_golden("state_dicts")[backbone].tolist()


def test_r50_has_44_million_parameters(r50: nn.Module) -> None:
    parts = [r50.backbone, r50.sem_seg_head.pixel_decoder, r50.sem_seg_head.predictor]
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in parts]
    assert counts == pytest.approx([23.45, 6.04, 14.47], abs=0.01)
    assert all(p.requires_grad for p in r50.parameters())
