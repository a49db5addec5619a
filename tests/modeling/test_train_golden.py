"""One training step of the whole R50 model against the reference's losses and gradients."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model

from maskfreevis_ext.ops.boxes import masks_to_boxes
from tests.helpers.configs import reference_cfg
from tests.helpers.criteria import LOSS_NAMES
from tests.helpers.fill import fill_module
from tests.helpers.golden import load_golden


@pytest.mark.slow
def test_training_step_equals_the_reference() -> None:
    golden = load_golden("model_r50_train_B2_T3")
    cfg = reference_cfg("r50")
    cfg.merge_from_list(
        [
            *("MODEL.MASKFREE.LAB_CHANNEL_ORDER", "reversed", "MODEL.MASKFREE.LAB_QUANTIZE", True),
            *("MODEL.MASKFREE.MATCH_OUTSIDE", True),
            *("MODEL.MASKFREE.PROJECTION.EMPTY_FRAME_WEIGHT", 0.0),
            *("MODEL.MASKFREE.TEACHER.WEIGHT", 0.0),  # the reference has none
            *("MODEL.MASKFREE.TEMPORAL.NORM_PAIRS", 0, "MODEL.MASKFREE.TEMPORAL.WARMUP_ITERS", 0),
        ]
    )
    model = build_model(cfg)
    fill_module(model)
    model.train()
    images = torch.from_numpy(golden["images"]).float()
    targets, num_clips = [], len(images)
    for clip in range(num_clips):
        masks = torch.from_numpy(golden[f"gt_masks_b{clip}"]) > 0
        targets.append(
            {
                "labels": torch.from_numpy(golden[f"labels_b{clip}"]),
                "boxes": masks_to_boxes(masks),
            }
        )
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
