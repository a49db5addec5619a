"""Frames in, tracks out: what the model is given, and what comes back."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from maskfreevis_ext.class_names import set_class_names
from maskfreevis_ext.data import YTVISDatasetMapper
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.predictor import VideoPredictor
from maskfreevis_ext.inference.video_io import FrameList
from maskfreevis_ext.inference.window import WindowSettings
from maskfreevis_ext.tracks import Prediction
from tests.helpers.color_model import ColorModel, draw_frames
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


def test_tracks_have_the_names_that_came_with_the_weights():
    model = Recorder()
    assert "pred_class_names" not in VideoPredictor(model, min_size=0)(make_frames())
    set_class_names(model, ["cat", "dog", "emu"])
    predictor = VideoPredictor(model, min_size=0)
    assert predictor.class_names == ["cat", "dog", "emu"]
    assert predictor(make_frames())["pred_class_names"] == ["dog", "emu", "cat"]


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


def _color_predictor(**settings) -> VideoPredictor:
    return VideoPredictor(ColorModel(), min_size=0, windows=WindowSettings(**settings))


def test_predict_in_windows_gives_encoded_masks_that_prediction_takes():
    frames = draw_frames([(t, 30 - t, None) for t in range(9)])

    output = _color_predictor(size=4, stride=2, above=8).predict(iter(frames), video_id=3)

    assert output["image_size"] == (20, 40)
    prediction = Prediction.from_output(output).select(0.5)
    assert len(prediction) == 2
    for t in range(9):
        assert sum(item.mask.sum() for item in prediction.items(t)) == 72
    assert len(prediction.results(3)[0]["segmentations"]) == 9


def test_predict_and_call_are_the_same():
    frames = make_frames()
    model = Recorder()
    one, other = VideoPredictor(model).predict(frames), VideoPredictor(model)(frames)
    assert one["pred_scores"] == other["pred_scores"]


def test_predict_reads_a_video_of_unknown_length_once_and_drops_its_frames():
    read = []

    def source():
        for frame in draw_frames([(t % 30, None, None) for t in range(40)]):
            own = frame.copy()
            read.append(weakref.ref(own))
            yield own

    frames = source()
    output = _color_predictor(size=4, stride=2, above=8).predict(frames)
    assert len(output["pred_masks"][0]) == len(read) == 40
    assert sum(frame() is not None for frame in read) <= 2


@pytest.mark.parametrize("mode", ["off", "offline", "online"])
def test_stream_gives_each_frame_with_stable_ids_and_a_window_of_latency(mode):
    read = 0

    def source():
        nonlocal read
        for frame in draw_frames([(t, 30 - t, None) for t in range(11)]):
            read += 1
            yield frame

    predictor = _color_predictor(mode=mode, size=4, stride=2)
    labels = {}
    for count, tracks in enumerate(predictor.stream(source())):
        assert tracks.index == count
        assert read - count <= 4
        seen = tracks.select(0.5)
        assert (len(seen), seen.masks.shape, seen.masks.dtype) == (2, (2, 20, 40), np.bool_)
        assert (seen.scores.dtype, seen.track_ids.dtype) == (np.float32, np.int64)
        for track_id, label in zip(seen.track_ids.tolist(), seen.labels.tolist(), strict=True):
            assert labels.setdefault(track_id, label) == label
        assert seen.extras == {"cells": 72}
    assert count == 10
    assert len(labels) == 2


@pytest.mark.parametrize("call", ["predict", "stream"])
def test_frames_of_another_size_are_refused_by_number_and_sizes(call):
    frames = make_frames(3, 20, 40) + make_frames(1, 20, 30)
    with pytest.raises(DataError, match=r"^frame 3: expected 40 x 20 .* frame 0, got 30 x 20"):
        list(getattr(_color_predictor(), call)(frames))


def test_stream_gives_the_frames_before_one_of_another_size():
    frames = draw_frames([(t, 30 - t, None) for t in range(6)])
    given = []

    def process() -> None:
        for tracks in _color_predictor(size=4, stride=3).stream([*frames, frames[0][:-2]]):
            given.append(tracks.index)

    with pytest.raises(DataError, match="frame 6"):
        process()
    assert given == list(range(6))


@pytest.mark.parametrize("call", ["predict", "stream"])
@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.float32), np.zeros((0, 5, 3), np.uint8)],
    ids=["grey", "float", "empty"],
)
def test_frames_that_are_no_rgb_pictures_are_refused(call, frame):
    with pytest.raises(DataError, match="frame 0: expected an RGB picture"):
        list(getattr(_color_predictor(), call)([frame]))


def test_stream_without_frames_is_refused_and_one_frame_is_enough():
    with pytest.raises(DataError, match="at least one frame"):
        list(_color_predictor().stream([]))
    (tracks,) = _color_predictor().stream(draw_frames([(3, 20, None)]))
    assert len(tracks.select(0.5)) == 2


def test_config_sets_the_windows():
    window = ("TEST.WINDOW.MODE", "online", "TEST.WINDOW.SIZE", 5, "TEST.WINDOW.STRIDE", 2)
    cfg = tiny_cfg(*window, "TEST.WINDOW.ABOVE", 9, "TEST.WINDOW.GAP", 7)
    predictor = VideoPredictor(cfg, build_model(cfg))
    assert predictor.windows == WindowSettings("online", size=5, stride=2, above=9, gap=7)
