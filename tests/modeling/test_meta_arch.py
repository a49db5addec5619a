"""The whole model: batches in, losses or tracks out."""

from __future__ import annotations

import contextlib

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from torch import nn

from maskfreevis_ext.errors import ConfigError, DataError
from tests.helpers.configs import tiny_cfg
from tests.helpers.fill import fill_module
from tests.helpers.transfers import CountTransfers

LOSSES = {
    "loss_ce",
    "loss_mask",
    "loss_dice",
    "loss_mask_proj",
    "loss_bound",
    "loss_bound_neighbor",
    "loss_teacher",
}


def _clip(
    frames: int = 2,
    size: tuple[int, int] = (48, 64),
    objects: int = 2,
    supervision: str = "box",
) -> dict:
    """A clip as the mapper gives it; in clips of T > 1 the first object is absent at first."""
    height, width = size
    instances = []
    for t in range(frames):
        frame = Instances(size)
        frame.gt_classes = torch.arange(objects) % 3
        frame.gt_ids = torch.arange(objects)
        boxes = torch.tensor([[4.0, 6.0, 30.0, 40.0]]).repeat(objects, 1)
        boxes += torch.arange(objects)[:, None] * 2 + t
        if t == 0 and frames > 1 and objects:
            frame.gt_ids[0] = -1
            boxes[0] = 0
        frame.gt_boxes = Boxes(boxes)
        if supervision != "box":
            masks = torch.zeros(objects, height, width, dtype=torch.bool)
            for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
                mask[y1:y2, x1:x2] = True
            frame.gt_masks = BitMasks(masks)
        if supervision == "teacher":
            frame.gt_confidence = 0.5 + torch.arange(objects) / 4
        instances.append(frame)
    return {
        "image": [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(frames)],
        "instances": instances,
        "supervision": supervision,
        "height": 2 * height,
        "width": 2 * width,
        "video_id": 5,
        "file_names": [f"{t}.jpg" for t in range(frames)],
        "frame_indices": list(range(frames)),
        "length": frames,
    }


def _video(frames: int, size: tuple[int, int] = (48, 64)) -> dict:
    clip = _clip(frames, size)
    del clip["instances"], clip["supervision"]
    return clip


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """The tiny model; tests set its mode and leave its weights alone."""
    torch.manual_seed(3)
    return build_model(tiny_cfg())


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (1, 5), (2, 2), (3, 3)])
def test_training_gives_all_losses(model: nn.Module, batch: int, frames: int) -> None:
    losses = model.train()([_clip(frames) for _ in range(batch)])
    assert set(losses) == {f"{k}{i}" for k in LOSSES for i in ("", "_0", "_1", "_2")}
    for name, loss in losses.items():
        assert loss.ndim == 0, name
        assert torch.isfinite(loss), name
    assert sum(losses.values()).requires_grad


def test_training_reaches_every_parameter() -> None:
    model = build_model(tiny_cfg()).train()
    clips = [_clip(2), _clip(2, size=(33, 50), supervision="mask"), _clip(2, objects=0)]
    sum(model(clips).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("supervision", ["box", "mask", "teacher"])
def test_gradients_of_matched_masks_only_equal_the_dense_ones(supervision: str) -> None:
    results = []
    for dense in (True, False):
        model = build_model(tiny_cfg("MODEL.MASKFREE.DENSE_MASK_GRADIENTS", dense)).double()
        fill_module(model)
        torch.manual_seed(3)
        losses = model.train()([_clip(2, supervision=supervision), _clip(2, objects=0)])
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        results.append((losses, gradients))
    for expected, got in zip(*results, strict=True):
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-8, msg=name)


def test_teacher_is_heard_in_clips_that_have_one_and_its_key_is_always_there(
    model: nn.Module,
) -> None:
    names = {f"loss_teacher{suffix}" for suffix in ("", "_0", "_1", "_2")}
    kinds = {
        "none": [_clip(2), _clip(2, supervision="mask")],
        "empty": [_clip(2, objects=0, supervision="teacher")],
        "some": [_clip(2), _clip(2, supervision="mask"), _clip(2, supervision="teacher")],
    }
    for kind, clips in kinds.items():
        losses = model.train()(clips)
        assert names <= set(losses)
        assert all((float(losses[name].detach()) > 0) == (kind == "some") for name in names)
        assert all(losses[name].requires_grad for name in names)


def test_weight_0_leaves_the_teacher_out() -> None:
    model = build_model(tiny_cfg("MODEL.MASKFREE.TEACHER.WEIGHT", 0.0)).train()
    assert not any("teacher" in name for name in model([_clip(2, supervision="teacher")]))


def test_training_without_deep_supervision_has_main_losses_only() -> None:
    model = build_model(tiny_cfg("MODEL.MASK_FORMER.DEEP_SUPERVISION", False)).train()
    assert set(model([_clip()])) == LOSSES


def test_training_with_autocast_is_finite(model: nn.Module) -> None:
    model.train()
    clips = [_clip(2)]
    expected = sum(model(clips).values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(clips)
    total = sum(losses.values())
    assert torch.isfinite(total)
    assert abs(total - expected) < 0.1 * expected


def test_training_with_pre_norm_runs() -> None:
    model = build_model(tiny_cfg("MODEL.MASK_FORMER.PRE_NORM", True)).train()
    assert torch.isfinite(sum(model([_clip(3)]).values()))


def test_training_with_swin_and_dropout_runs() -> None:
    cfg = tiny_cfg("MODEL.BACKBONE.NAME", "D2SwinTransformer", "MODEL.MASK_FORMER.DROPOUT", 0.1)
    cfg.MODEL.SWIN.EMBED_DIM = 8
    cfg.MODEL.SWIN.DEPTHS = [2, 1, 1, 1]
    cfg.MODEL.SWIN.NUM_HEADS = [1, 2, 2, 2]
    model = build_model(cfg).train()
    sum(model([_clip(2, (40, 50))]).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_training_passes_raw_padded_frames_to_the_criterion(model: nn.Module) -> None:
    clips = [_clip(2, (40, 64)), _clip(2, (48, 33))]
    seen = {}

    class Recorder(nn.Module):
        def forward(self, outputs: dict, targets: list, **kwargs: object) -> dict:
            seen.update(kwargs, outputs=outputs, targets=targets)
            return {}

    criterion, model.criterion = model.criterion, Recorder()
    try:
        model.train()(clips)
    finally:
        model.criterion = criterion
    assert seen["frame_sizes"] == [(40, 64), (48, 33)]
    frames = seen["frames"]
    assert frames.shape == (2, 2, 3, 64, 64)
    assert torch.equal(frames[0, 1, :, :40, :64], clips[0]["image"][1].float())
    assert frames[0, :, :, 40:].abs().max() == frames[1, :, :, :, 33:].abs().max() == 0
    assert seen["outputs"]["pred_masks"].shape == (2, 8, 2, 16, 16)
    assert len(seen["targets"]) == 2


def test_padding_does_not_depend_on_the_pixel_mean(model: nn.Module) -> None:
    seen = []
    handle = model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model.eval()([_video(1, (40, 33))])
    finally:
        handle.remove()
    assert seen[0].shape == (1, 3, 64, 64)
    assert seen[0][..., 40:, :].abs().max() == seen[0][..., 33:].abs().max() == 0
    assert seen[0][..., :40, :33].abs().max() > 0


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_inference_output_format(model: nn.Module, frames: int) -> None:
    results = model.eval()([_video(frames), _video(frames + 1, (50, 40))])
    assert len(results) == 2
    for result, length, size in zip(
        results, (frames, frames + 1), ((96, 128), (100, 80)), strict=True
    ):
        assert result["image_size"] == size
        assert len(result["pred_scores"]) == len(result["pred_labels"]) == 10
        assert result["pred_scores"] == sorted(result["pred_scores"], reverse=True)
        assert all(0 <= label < 3 for label in result["pred_labels"])
        for mask in result["pred_masks"]:
            assert mask.shape == (length, *size)
            assert mask.dtype == torch.bool
            assert mask.device.type == "cpu"


def test_inference_keeps_the_asked_number_of_tracks() -> None:
    model = build_model(tiny_cfg("MODEL.MASKFREE.TEST.NUM_TRACKS", 3)).eval()
    assert len(model([_video(2)])[0]["pred_masks"]) == 3


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_inference_in_chunks_equals_the_whole(model: nn.Module, chunk: int) -> None:
    video, seen = _video(5), []
    model.eval()
    handle = model.sem_seg_head.predictor.register_forward_hook(
        lambda _module, _inputs, outputs: seen.append(outputs)
    )
    before = model.frames_per_chunk
    try:
        whole = model([video])[0]
        model.frames_per_chunk = chunk
        parts = model([video])[0]
    finally:
        model.frames_per_chunk = before
        handle.remove()
    for name in ("pred_logits", "pred_masks"):
        scale = seen[0][name].abs().max()
        assert (seen[1][name] - seen[0][name]).abs().max() < 1e-5 * scale
    assert whole["pred_labels"] == parts["pred_labels"]


def test_inference_does_not_see_more_frames_than_a_chunk(model: nn.Module) -> None:
    sizes = []
    handle = model.backbone.register_forward_hook(
        lambda _, inputs, __: sizes.append(len(inputs[0]))
    )
    before, model.frames_per_chunk = model.frames_per_chunk, 2
    try:
        model.eval()([_video(5)])
    finally:
        model.frames_per_chunk = before
        handle.remove()
    assert sizes == [2, 2, 1]


def test_inference_builds_no_aux_outputs_and_no_graph(model: nn.Module) -> None:
    seen = []
    handle = model.sem_seg_head.predictor.register_forward_hook(
        lambda _module, _inputs, outputs: seen.append(outputs)
    )
    try:
        model.eval()([_video(2)])
    finally:
        handle.remove()
    assert set(seen[0]) == {"pred_logits", "pred_masks", "queries"}
    assert not seen[0]["pred_masks"].requires_grad


@pytest.mark.parametrize("has_heads", [False, True])
def test_training_waits_for_the_device_in_the_matcher_only(
    has_heads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("MODEL.MULTIMASK.ENABLED", True, "MODEL.SPATIAL_MASK.ENABLED", True)
    priors = ("MODEL.MASKFREE.OUTSIDE.WEIGHT", 1.0, "MODEL.MASKFREE.FILL.WEIGHT", 1.0)
    model = build_model(tiny_cfg(*priors, *options if has_heads else ())).train()
    clips = [_clip(2), _clip(2, objects=1, supervision="mask"), _clip(2, supervision="teacher")]
    matches: list = []
    find = model.criterion.matcher.forward
    monkeypatch.setattr(model.criterion.matcher, "forward", lambda *x: matches.append(find(*x)))
    with contextlib.suppress(TypeError):  # the criterion cannot go on without matches
        model(clips)
    monkeypatch.setattr(model.criterion.matcher, "forward", lambda *x: matches[0])
    monkeypatch.setattr(torch, "autocast", lambda *x, **y: contextlib.nullcontext())
    meta = torch.device("meta")  # has no autocast
    with CountTransfers(meta):
        losses = model.to(meta)(clips)
    assert all(value.device == meta for value in losses.values())


@pytest.mark.parametrize("head", [None, "MULTIMASK", "SPATIAL_MASK"])
def test_test_amp_predicts_in_bfloat16_with_float32_weights(
    head: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    options = () if head is None else (f"MODEL.{head}.ENABLED", True)
    model = build_model(tiny_cfg("TEST.AMP", "bfloat16", *options)).eval()
    video = _video(2)
    encoded = model.encode(torch.stack(video["image"]))
    assert encoded.mask_features.dtype == torch.bfloat16
    outputs = model.decode(encoded)
    assert outputs["pred_masks"].dtype == torch.bfloat16
    result = model([video])[0]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert not torch.is_autocast_enabled("cpu")
    model.test_amp = None
    expected = model.encode(torch.stack(video["image"])).mask_features
    assert (encoded.mask_features.float() - expected).norm() < 0.02 * expected.norm()
    assert len(result["pred_masks"]) == 10
    if head is None:  # random masks of few pixels: rounding changes what the multimask head chooses
        assert result["pred_scores"] == pytest.approx(model([video])[0]["pred_scores"], abs=0.02)


def test_test_amp_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    for name in ("bfloat16", "float16"):
        with pytest.raises(ConfigError, match=rf"TEST\.AMP.*MODEL\.DEVICE cpu.*got {name}"):
            build_model(tiny_cfg("TEST.AMP", name))


@pytest.mark.parametrize("head", [None, "MULTIMASK", "SPATIAL_MASK"])
def test_inference_in_bfloat16_runs(head: str | None) -> None:
    options = () if head is None else (f"MODEL.{head}.ENABLED", True)
    model = build_model(tiny_cfg(*options)).eval().bfloat16()
    assert len(model([_video(2)])[0]["pred_masks"]) == 10


def test_clips_of_different_length_in_a_batch_raise(model: nn.Module) -> None:
    with pytest.raises(DataError, match=r"same number of frames, got \[2, 3\] for videos \[5, 5\]"):
        model.train()([_clip(2), _clip(3)])


def test_frames_of_different_size_in_a_video_raise(model: nn.Module) -> None:
    video = _video(2)
    video["image"][1] = video["image"][1][:, :40]
    with pytest.raises(
        DataError, match=r"Video 5: .* one size, got sizes \[\(40, 64\), \(48, 64\)\]"
    ):
        model.eval()([video])


def test_video_without_frames_raises(model: nn.Module) -> None:
    with pytest.raises(DataError, match=r"Video 5: .* got no frames"):
        model.eval()([_video(0)])


@pytest.mark.parametrize(("divisibility", "padded"), [(-1, (64, 64)), (4, (40, 36))])
def test_size_divisibility_sets_the_padding(divisibility: int, padded: tuple[int, int]) -> None:
    model = build_model(tiny_cfg("MODEL.MASK_FORMER.SIZE_DIVISIBILITY", divisibility))
    assert model._padded_size([(40, 33), (38, 20)]) == padded
    assert torch.isfinite(sum(model.train()([_clip(2, (40, 33))]).values()))
    assert len(model.eval()([_video(2, (40, 33))])[0]["pred_masks"]) == 10


def test_size_divisibility_must_suit_the_masks() -> None:
    with pytest.raises(ConfigError, match=r"SIZE_DIVISIBILITY: expected a multiple of .* got 6"):
        build_model(tiny_cfg("MODEL.MASK_FORMER.SIZE_DIVISIBILITY", 6))


def test_pixel_statistics_are_not_in_the_state_dict(model: nn.Module) -> None:
    assert not {"pixel_mean", "pixel_std"} & set(model.state_dict())
    assert model.device == torch.device("cpu")
