"""Frames in, tracks out: what the model is given, and what comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from maskfreevis_ext.data import YTVISDatasetMapper
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.predictor import VideoPredictor
from maskfreevis_ext.inference.video_io import FrameList
from tests.helpers.configs import tiny_cfg
from tests.helpers.videos import plain_content, write_frames


class Recorder(nn.Module):
    """A model that keeps its batch and predicts three tracks."""

    def forward(self, batch: list[dict]) -> list[dict]:
        assert not torch.is_grad_enabled()
        assert not self.training
        self.batch = batch[0]
        size = (len(self.batch["image"]), self.batch["height"], self.batch["width"])
        return [
            {
                "image_size": size[1:],
                "pred_scores": [0.2, 0.9, 0.5],
                "pred_labels": [0, 1, 2],
                "pred_masks": [torch.full(size, k == 1) for k in range(3)],
            }
        ]


def make_frames(count: int = 3, height: int = 40, width: int = 60) -> list[np.ndarray]:
    rng = np.random.RandomState(0)
    return [rng.randint(0, 256, (height, width, 3)).astype(np.uint8) for _ in range(count)]


def test_surest_track_comes_first():
    prediction = VideoPredictor(Recorder(), min_size=0)(make_frames())

    assert prediction["pred_scores"] == [0.9, 0.5, 0.2]
    assert prediction["pred_labels"] == [1, 2, 0]
    assert prediction["pred_masks"][0].all()
    assert not prediction["pred_masks"][1].any()
    assert prediction["image_size"] == (40, 60)


@pytest.mark.parametrize(
    ("min_size", "max_size", "expected"),
    [(0, 99, (40, 60)), (20, 99, (20, 30)), (80, 90, (60, 90))],
)
def test_frames_are_resized_by_the_shorter_side(min_size, max_size, expected):
    model = Recorder()

    VideoPredictor(model, min_size=min_size, max_size=max_size)(make_frames())

    assert [tuple(image.shape) for image in model.batch["image"]] == [(3, *expected)] * 3
    assert (model.batch["height"], model.batch["width"], model.batch["length"]) == (40, 60, 3)
    assert model.batch["frame_indices"] == [0, 1, 2]


def test_channel_order_is_the_models():
    rgb, bgr = Recorder(), Recorder()
    frames = make_frames()

    VideoPredictor(rgb, min_size=0, image_format="RGB")(frames)
    VideoPredictor(bgr, min_size=0, image_format="BGR")(frames)

    assert torch.equal(rgb.batch["image"][1], torch.from_numpy(frames[1].transpose(2, 0, 1)))
    assert torch.equal(bgr.batch["image"][1], rgb.batch["image"][1].flip(0))


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_input_equals_that_of_the_test_loader(tmp_path, image_format):
    content = plain_content()
    content["videos"] = content["videos"][:1]
    video = content["videos"][0]
    root = write_frames(tmp_path, content)
    cfg = tiny_cfg("INPUT.FORMAT", image_format, "INPUT.MIN_SIZE_TEST", 13)
    paths = [f"{root}/{name}" for name in video["file_names"]]
    expected = YTVISDatasetMapper(cfg, is_train=False)(
        {"file_names": paths, "video_id": 1, "annotations": []}
        | {key: video[key] for key in ("height", "width", "length")}
    )

    model = Recorder()
    VideoPredictor(cfg, model)(FrameList(paths, "v1"))

    for one, other in zip(model.batch["image"], expected["image"], strict=True):
        assert torch.equal(one, other)
    assert model.batch["height"] == expected["height"]


def test_frames_are_read_once_and_one_by_one():
    seen = []

    def stream():
        for frame in make_frames(5):
            seen.append(frame)
            yield frame

    VideoPredictor(Recorder())(stream())

    assert len(seen) == 5


def test_no_frame_is_refused():
    with pytest.raises(DataError, match="at least one frame"):
        VideoPredictor(Recorder())(iter(()))


def test_real_model_predicts_masks_of_the_frames_size():
    cfg = tiny_cfg("INPUT.MIN_SIZE_TEST", 32)
    predictor = VideoPredictor(cfg, build_model(cfg))

    prediction = predictor(make_frames(2, 41, 67))

    assert prediction["image_size"] == (41, 67)
    assert prediction["pred_scores"] == sorted(prediction["pred_scores"], reverse=True)
    assert all(mask.shape == (2, 41, 67) for mask in prediction["pred_masks"])
    assert all(mask.dtype == torch.bool for mask in prediction["pred_masks"])
