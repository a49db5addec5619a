"""A video through the model and into files: reads ahead, predicts, draws and writes behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.frame_tracks import FrameTracks
from maskfreevis_ext.inference.predictor import VideoPredictor
from maskfreevis_ext.inference.video_io import FrameSource, TimedFrame, every_nth
from maskfreevis_ext.inference.video_io.threads import WriteBehind, read_ahead
from maskfreevis_ext.inference.video_outputs import VideoOutputs
from maskfreevis_ext.tracks import Prediction


@dataclass(frozen=True)
class SegmentSettings:
    """What is taken from a video, and what is kept of its prediction.

    Attributes:
        min_score: Tracks with a lower score are left out.
        labels: Classes to keep; None: all.
        fps: Constant frame rate instead of the time stamps; None: the video's.
        stride: Only every n-th frame is taken.
        max_frames: Largest number of frames; None: all.
        is_online: Whether each frame is written as soon as the model is through with it.
    """

    min_score: float = 0.3
    labels: Collection[int] | None = None
    fps: float | None = None
    stride: int = 1
    max_frames: int | None = None
    is_online: bool = False


def segment_video(
    source: FrameSource,
    predictor: VideoPredictor,
    outputs: VideoOutputs,
    settings: SegmentSettings,
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Predict the tracks of a video, draw and write them.

    Online, frames are read once and written when their window is predicted. Otherwise, the whole
    video is predicted first and then read again to be drawn.

    Args:
        source: The video.
        predictor: The model.
        outputs: Where frames and tracks go; not closed here.
        settings: What is taken and kept.
        is_stopped: Asked before each frame that is read; when it is true, the video ends there.

    Raises:
        DataError: The source has no frame, a frame cannot be read, or an output not written. The
            outputs then hold the frames before.
    """
    intake = _Intake(source, settings, is_stopped)
    if settings.is_online or source.is_live:
        _segment_online(source, predictor, outputs, intake)
    else:
        _segment_offline(source, predictor, outputs, intake)
    intake.raise_fault()


class _Intake:
    """The frames that are taken; one that cannot be read ends them, as a request to stop does.

    Attributes:
        num_frames: How many were taken.
        settings: What is taken, and kept of the prediction.
    """

    def __init__(
        self, source: FrameSource, settings: SegmentSettings, is_stopped: Callable[[], bool]
    ) -> None:
        self.num_frames = 0
        self.settings = settings
        self._source, self._is_stopped = source, is_stopped
        self._fault: DataError | None = None

    def __iter__(self) -> Iterator[TimedFrame]:
        with closing(_frames(self._source, self.settings)) as frames:
            try:
                for frame in frames:
                    if self._is_stopped():
                        return
                    self.num_frames += 1
                    yield frame
            except DataError as error:
                self._fault = error

    def raise_fault(self) -> None:
        """Raise what ended the frames early, if something did."""
        if self._fault is not None:
            raise self._fault


def _segment_online(
    source: FrameSource, predictor: VideoPredictor, outputs: VideoOutputs, intake: _Intake
) -> None:
    waiting: deque[TimedFrame] = deque()  # frames that the model has got and not yet given back
    settings = intake.settings

    def pictures() -> Iterator[np.ndarray]:
        for frame in intake:
            waiting.append(frame)
            yield frame.picture
        if not intake.num_frames:
            intake.raise_fault()

    with _Writing(outputs) as writing, _progress(source, settings, "segmenting") as progress:
        for tracks in predictor.stream(pictures()):
            kept = tracks.select(settings.min_score, settings.labels)
            writing.put((waiting.popleft(), kept))
            progress.update()


def _segment_offline(
    source: FrameSource, predictor: VideoPredictor, outputs: VideoOutputs, intake: _Intake
) -> None:
    settings = intake.settings

    def pictures() -> Iterator[np.ndarray]:
        with _progress(source, settings, "predicting") as progress:
            for frame in intake:
                yield frame.picture
                progress.update()
        if not intake.num_frames:
            intake.raise_fault()

    prediction = Prediction.from_output(predictor.predict(pictures()))
    kept = prediction.select(settings.min_score, settings.labels)
    progress = tqdm(total=intake.num_frames, desc=f"{source.name}: drawing", unit="frame")
    with _Writing(outputs) as writing, progress, closing(_frames(source, settings)) as frames:
        for number, frame in zip(range(intake.num_frames), frames, strict=False):
            writing.put((frame, tracks_of_frame(kept, number, frame.picture.shape[:2])))
            progress.update()


def tracks_of_frame(prediction: Prediction, frame: int, size: tuple[int, ...]) -> FrameTracks:
    """The visible objects of one frame of a prediction.

    Args:
        prediction: The tracks.
        frame: Index of the frame.
        size: (H, W).

    Raises:
        DataError: An encoded mask is malformed.
    """
    masks = [np.asarray(of_track[frame], dtype=bool) for of_track in prediction.masks]
    seen = [index for index, mask in enumerate(masks) if mask.any()]
    return FrameTracks(
        frame,
        np.array([prediction.numbers[index] for index in seen], np.int64),
        np.array([prediction.labels[index] for index in seen], np.int64),
        np.array([prediction.scores[index] for index in seen], np.float32),
        np.stack([masks[index] for index in seen]) if seen else np.zeros((0, *size[:2]), bool),
    )


def _frames(source: FrameSource, settings: SegmentSettings) -> Generator[TimedFrame, None, None]:
    """The frames that are taken, read ahead in a thread."""
    timed = source.timed(settings.fps)
    return read_ahead(every_nth(timed, settings.stride, settings.max_frames))


def _progress(source: FrameSource, settings: SegmentSettings, what: str) -> tqdm:
    """A progress bar with the remaining time, where the number of frames is known."""
    total = -(-source.num_frames // settings.stride) or None
    if settings.max_frames is not None:
        total = min(total or settings.max_frames, settings.max_frames)
    return tqdm(total=total, desc=f"{source.name}: {what}", unit="frame")


class _Writing(WriteBehind[tuple[TimedFrame, FrameTracks]]):
    """Writes to outputs in a thread, which has ended at the end of the ``with`` block."""

    def __init__(self, outputs: VideoOutputs) -> None:
        super().__init__(lambda item: outputs.write(*item))

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:  # otherwise the first error goes on
                raise
