"""One training step of the whole R50 model against the reference's losses and gradients."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model

from maskfreevis_ext.losses import mask as mask_terms
from maskfreevis_ext.ops.boxes import masks_to_boxes
from maskfreevis_ext.ops.points import uncertain_point_coords
from tests.helpers.configs import reference_cfg
from tests.helpers.criteria import LOSS_NAMES
from tests.helpers.fill import fill_module
from tests.helpers.golden import load_golden

#: Every fault of the reference switched back on.
FAULTS = (
    *("MODEL.MASKFREE.LAB_CHANNEL_ORDER", "reversed", "MODEL.MASKFREE.LAB_QUANTIZE", True),
    *("MODEL.MASKFREE.MATCH_OUTSIDE", True, "MODEL.MASKFREE.TEACHER.WEIGHT", 0.0),
    *("MODEL.MASKFREE.PROJECTION.EMPTY_FRAME_WEIGHT", 0.0),
    *("MODEL.MASKFREE.TEMPORAL.NORM_PAIRS", 0, "MODEL.MASKFREE.TEMPORAL.WARMUP_ITERS", 0),
)


def _stored_points(golden: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the points of the mask terms as the reference did, layer after layer."""
    layers = iter(range(10))

    def stored(rows: torch.Tensor, *numbers: float) -> torch.Tensor:
        layer = next(layers)
        candidates, extra = (
            torch.from_numpy(golden[f"rand_{4 * layer + draw:03d}"]) for draw in (2, 3)
        )
        return uncertain_point_coords(rows, *numbers, candidates=candidates, extra=extra)

    monkeypatch.setattr(mask_terms, "uncertain_point_coords", stored)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model_r50_train_B2_T3", "model_r50_train_coco_B2_T4"])
def test_training_step_equals_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos with boxes, and clips of images with masks."""
    golden = load_golden(name)
    has_masks = "coco" in name
    cfg = reference_cfg("r50")
    cfg.merge_from_list([*FAULTS, "MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 128])
    if has_masks:
        _stored_points(golden, monkeypatch)
    model = build_model(cfg)
    fill_module(model)
    model.train()
    images = torch.from_numpy(golden["images"]).float()
    targets, num_clips = [], len(images)
    for clip in range(num_clips):
        masks = torch.from_numpy(golden[f"gt_masks_b{clip}"]) > 0
        target = {
            "labels": torch.from_numpy(golden[f"labels_b{clip}"]),
            "boxes": masks_to_boxes(masks),
        }
        targets.append(target | ({"masks": masks} if has_masks else {}))
    matches = [
        [
            tuple(
                torch.from_numpy(golden[f"match_{side}_l{layer}_b{clip}"])
                for side in ("src", "tgt")
            )
            for clip in range(num_clips)
        ]
        for layer in range(10)
    ]

    normalized = (images - model.pixel_mean) / model.pixel_std
    features = model.backbone(normalized.flatten(0, 1))
    outputs = model.sem_seg_head(features, images.shape[1], return_aux=True)
    torch.testing.assert_close(
        outputs["pred_logits"].detach(),
        torch.from_numpy(golden["pred_logits"]),
        rtol=1e-4,
        atol=1e-4,
    )
    sizes = [tuple(images.shape[-2:])] * num_clips
    losses = model.criterion(outputs, targets, images, sizes, matches)
    # the reference's warm-up rises with every decoder output
    start = float(golden["iter_before"])
    for layer in range(10):
        suffix = f"_{layer - 1}" if layer else ""
        key = "loss_bound_neighbor" + suffix
        losses[key] = losses[key] * min((start + layer + 1) / 2000, 1.0)

    expected = dict(
        zip(golden["loss_names"].tolist(), golden["loss_values_weighted"].tolist(), strict=True)
    )
    assert set(losses) == set(expected)
    assert len(losses) == 10 * len(LOSS_NAMES)
    for name, value in losses.items():
        assert float(value.detach()) == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name
    sum(losses.values()).backward()
    norms = {name: float(p.grad.double().norm()) for name, p in model.named_parameters()}
    assert set(norms) == set(golden["grad_names"].tolist())
    for name, norm in zip(golden["grad_names"].tolist(), golden["grad_norm"].tolist(), strict=True):
        assert norms[name] == pytest.approx(norm, rel=5e-3, abs=1e-5), name
