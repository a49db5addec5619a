"""From a source through a predictor to files, with a predictor that finds what is bright."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.frame_tracks import FrameTracks
from maskfreevis_ext.inference.segment_video import (
    SegmentSettings,
    check_frame_size,
    segment_video,
    tracks_of_frame,
)
from maskfreevis_ext.inference.video_io import FrameList, TimedFrame, open_frames, write_image
from maskfreevis_ext.inference.video_outputs import VideoOutputs, plan_outputs
from maskfreevis_ext.tracks import Prediction
from tests.helpers.clips import write_clip

LATENCY = 3


class BrightPredictor:
    """Two tracks, of the bright pixels and, with score 0.2 and class 1, of all pixels."""

    def __init__(self) -> None:
        self.num_frames = 0

    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[FrameTracks]:
        """Frames come out ``LATENCY`` frames late."""
        held: list[tuple[int, np.ndarray]] = []
        for index, frame in enumerate(frames):
            self.num_frames += 1
            held.append((index, frame))
            if len(held) > LATENCY:
                yield self._tracks(*held.pop(0))
        if not self.num_frames:
            raise DataError("expected a video with at least one frame, got none.")
        for index, frame in held:
            yield self._tracks(index, frame)

    def _tracks(self, index: int, frame: np.ndarray) -> FrameTracks:
        masks = np.stack([frame[..., 0] > 100, np.ones(frame.shape[:2], bool)])
        return FrameTracks(
            index, np.array([1, 2]), np.array([0, 1]), np.array([0.9, 0.2], np.float32), masks
        )

    def predict(self, frames: Iterable[np.ndarray]) -> dict:
        tracks = list(self.stream(frames))
        masks = [torch.from_numpy(np.stack([frame.masks[k] for frame in tracks])) for k in (0, 1)]
        return {"pred_scores": [0.9, 0.2], "pred_labels": [0, 1], "pred_masks": masks}


def pictures(folder: Path, count: int = 8) -> FrameList:
    """A bright column that moves by a pixel a frame."""
    paths = [folder / f"{t}.png" for t in range(count)]
    for t, path in enumerate(paths):
        picture = np.full((12, 16, 3), 30, np.uint8)
        picture[:, t] = 200
        write_image(path, picture)
    return FrameList(paths, "walk")


def segment(source, output: Path, kinds=("ytvis",), predictor=None, is_stopped=None, **settings):
    (plan,) = plan_outputs([source.name], str(output), kinds)
    options = {"fps": None, "class_names": None, "category_ids": {0: 1, 1: 2}, "video_id": 1}
    with VideoOutputs(plan, source, **options) as outputs:
        segment_video(
            source,
            predictor or BrightPredictor(),
            outputs,
            SegmentSettings(**settings),
            is_stopped or (lambda: False),
        )
    return outputs


def columns(results: Path, track: int = 0) -> list[int]:
    """The bright column that was found in each frame."""
    entry = json.loads(results.read_text())[track]
    masks = Prediction.sort([1.0], [0], [_masks(entry["segmentations"])]).masks[0]
    return [int(mask.any(0).argmax()) for mask in masks]


def _masks(segmentations: list[dict]) -> np.ndarray:
    from maskfreevis_ext.rle import decode_rle

    return np.stack([decode_rle(rle) for rle in segmentations])


@pytest.mark.parametrize("is_online", [False, True])
class TestBothModes:
    """Frames and their objects stay together."""

    def test_objects_are_those_of_the_frame(self, tmp_path, is_online):
        source = pictures(tmp_path / "in")

        outputs = segment(source, tmp_path / "out", ("ytvis", "frames"), is_online=is_online)

        assert columns(tmp_path / "out" / "walk.json") == list(range(8))
        drawn = list(open_frames(tmp_path / "out" / "walk"))
        for t, (picture, original) in enumerate(zip(drawn, source, strict=True)):
            is_changed = (picture != original).any(2)
            assert is_changed[:, t].any()
        assert (outputs.num_frames, outputs.track_ids) == (8, {1})
        assert not {"read_ahead", "write_behind"} & {
            thread.name for thread in threading.enumerate()
        }

    def test_stride_and_number_of_frames(self, tmp_path, is_online):
        source = pictures(tmp_path / "in")

        segment(source, tmp_path / "out", is_online=is_online, stride=3, max_frames=2)

        assert columns(tmp_path / "out" / "walk.json") == [0, 3]

    def test_score_and_classes_choose(self, tmp_path, is_online):
        source = pictures(tmp_path / "in")

        outputs = segment(source, tmp_path / "a", is_online=is_online, min_score=0.1, labels=[1])

        assert outputs.track_ids == {2}

    def test_request_to_stop_completes_what_was_read(self, tmp_path, is_online):
        predictor = BrightPredictor()

        outputs = segment(
            pictures(tmp_path / "in"),
            tmp_path / "out",
            ("ytvis", "mp4"),
            predictor,
            lambda: predictor.num_frames == 5,
            is_online=is_online,
        )

        assert outputs.num_frames == 5
        assert columns(tmp_path / "out" / "walk.json") == list(range(5))
        assert len(list(open_frames(tmp_path / "out" / "walk.mp4"))) == 5

    def test_uneven_times_are_those_of_the_source(self, tmp_path, is_online):
        times = [0, 0.033, 0.07, 0.2, 0.233, 0.5, 0.533, 0.9]
        source = open_frames(write_clip(tmp_path / "a.mkv", times))

        segment(source, tmp_path / "out.mp4", ("mp4",), is_online=is_online)

        drawn = [frame.time for frame in open_frames(tmp_path / "out.mp4").timed()]
        assert drawn == pytest.approx(times, abs=0.002)

    def test_frame_that_breaks_late_keeps_those_before_it(self, tmp_path, is_online):
        source = pictures(tmp_path / "in")
        source.files[6].write_bytes(b"no picture")

        with pytest.raises(DataError, match=r"6\.png: expected an image"):
            segment(source, tmp_path / "out", is_online=is_online)

        assert columns(tmp_path / "out" / "walk.json") == list(range(6))

    def test_first_frame_that_breaks_leaves_no_file(self, tmp_path, is_online):
        source = pictures(tmp_path / "in")
        source.files[0].write_bytes(b"no picture")

        with pytest.raises(DataError, match=r"0\.png: expected an image"):
            segment(source, tmp_path / "out", is_online=is_online)

        assert not (tmp_path / "out").exists()

    def test_output_that_breaks_ends_the_run(self, tmp_path, is_online, monkeypatch):
        def full(self: VideoOutputs, frame: TimedFrame, tracks: FrameTracks) -> None:
            raise DataError("the disk is full")

        monkeypatch.setattr(VideoOutputs, "write", full)

        with pytest.raises(DataError, match="the disk is full"):
            segment(pictures(tmp_path / "in", 16), tmp_path / "out", is_online=is_online)

        assert not {"read_ahead", "write_behind"} & {
            thread.name for thread in threading.enumerate()
        }


def test_frames_that_vanish_when_they_are_resized_are_refused(tmp_path):
    write_image(tmp_path / "thin.png", np.zeros((5, 4000, 3), np.uint8))
    source = FrameList([tmp_path / "thin.png"], "thin")

    check_frame_size(source, 360, 1333)
    check_frame_size(source, 0, 0)
    with pytest.raises(DataError, match=r"thin: frames of 4000 x 5 .*MAX_SIZE_TEST 300"):
        check_frame_size(source, 100, 300)


def test_live_source_is_read_once(tmp_path):
    class Live(FrameList):
        num_readings = 0

        def timed(self, fps: float | None = None) -> Iterator[TimedFrame]:
            self.num_readings += 1
            return super().timed(fps)

    source = Live(pictures(tmp_path / "in").files, "live")
    source.is_live = True

    segment(source, tmp_path / "out", is_online=False)

    assert source.num_readings == 1


def test_tracks_of_a_frame_are_the_visible_ones():
    masks = np.zeros((2, 3, 4, 5), bool)
    masks[0, 1, 2, 3] = masks[1, :, 0, 0] = True
    prediction = Prediction.sort([0.9, 0.5], [1, 0], list(masks))

    assert len(tracks_of_frame(prediction, 0, (4, 5))) == 1
    both = tracks_of_frame(prediction, 1, (4, 5))
    assert both.track_ids.tolist() == [1, 2]
    assert both.labels.tolist() == [1, 0]
    none = tracks_of_frame(prediction.select(0.95), 1, (4, 5))
    assert none.masks.shape == (0, 4, 5)
