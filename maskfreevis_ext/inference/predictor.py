"""Prediction of tracks with a trained model: of a whole video, or frame after frame."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms
from torch import nn

from maskfreevis_ext.class_names import class_names_of
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.frame_tracks import FrameTracks
from maskfreevis_ext.inference.video_io import open_frames
from maskfreevis_ext.inference.video_model import VideoModel
from maskfreevis_ext.inference.window import WindowSettings, iterate_windows
from maskfreevis_ext.tracks import Prediction


class VideoPredictor:
    """Runs a model on the frames of a video, which it prepares like the test loader.

    ``VideoPredictor(cfg, model)`` reads sizes and channel order from the config keys
    INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST and INPUT.FORMAT, and the windows from TEST.WINDOW.

    Args:
        model: The model; in eval mode it maps a list of one batch dict to a list of one prediction.
        min_size: Length of the shorter side after resizing, in pixels; 0: frames are not resized.
        max_size: Largest length of the longer side after resizing.
        image_format: Channel order of the model's input, "RGB" or "BGR".
        windows: When a video is processed in windows, and in which; None: the defaults. Windows
            need a ``VideoMaskFormer``.
    """

    @configurable
    def __init__(
        self,
        model: nn.Module,
        *,
        min_size: int = 360,
        max_size: int = 1333,
        image_format: str = "RGB",
        windows: WindowSettings | None = None,
    ) -> None:
        self.model = model.eval()
        #: Name of each class, as it came with the weights; None where it is unknown.
        self.class_names = class_names_of(model)
        self.windows = windows or WindowSettings()
        self._video_model = VideoModel(model, self.windows)
        self._resize = transforms.ResizeShortestEdge([min_size, min_size], max_size)
        self._is_bgr = image_format == "BGR"

    @classmethod
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """The arguments of ``__init__``, from a config.

        Args:
            cfg: The config from which the model was built.
            model: The model, with its weights.

        Returns:
            Keyword arguments of the class.
        """
        return {
            "model": model,
            "min_size": cfg.INPUT.MIN_SIZE_TEST,
            "max_size": cfg.INPUT.MAX_SIZE_TEST,
            "image_format": cfg.INPUT.FORMAT,
            "windows": WindowSettings.from_config(cfg),
        }

    def __call__(self, frames: Iterable[np.ndarray], video_id: int = 0) -> dict[str, Any]:
        """``predict``."""
        return self.predict(frames, video_id)

    def predict(self, frames: Iterable[np.ndarray], video_id: int = 0) -> dict[str, Any]:
        """Predict the tracks of a video.

        A video of more than TEST.WINDOW.ABOVE frames is processed in windows (unless
        TEST.WINDOW.MODE is "off"); then only the frames of a window are in memory.

        Args:
            frames: T >= 1 pictures, RGB uint8 [H,W,3] of one size. Each is resized when it is read,
                and only the resized frames stay in memory.
            video_id: Passed on to the model.

        Returns:
            ``image_size``, the (H, W) of the frames, and three lists with one entry per track, the
            highest score first: ``pred_scores``, float in [0, 1]; ``pred_labels``, int, the number
            of the class from 0; ``pred_masks``, bool CPU tensor [T,H,W] at the size of the frames,
            or after windows ``RleMasks``, whose item t is bool [H,W]. A fourth list,
            ``pred_class_names``, where the weights have class names. Also the results of the
            auxiliary heads: with a spatial mask head ``dynamic_mask``, uint8 CPU tensor [T,H,W],
            its probabilities times 255.

        Raises:
            DataError: There is no frame, a frame is not RGB uint8, or the frames differ in size.
        """
        size, images = self._open(frames)
        longest = self.windows.longest_whole()
        opening = deque(images if longest is None else itertools.islice(images, longest + 1))
        if longest is not None and len(opening) > longest:
            rest = itertools.chain(_popping(opening), images)
            prediction = self._video_model.predict_windows(rest, size, f"video {video_id}")
        else:
            prediction = self._predict_whole(list(opening), size, video_id)
        tracks = Prediction.from_output(prediction)
        by_track = {
            "pred_scores": tracks.scores,
            "pred_labels": tracks.labels,
            "pred_masks": tracks.masks,
        }
        if self.class_names is not None:
            by_track["pred_class_names"] = [self.class_names[label] for label in tracks.labels]
        return {**prediction, "image_size": size, **by_track}

    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[FrameTracks]:
        """Predict the objects of each frame, as soon as the window is processed that it is in.

        The keys TEST.WINDOW.SIZE, STRIDE and GAP hold; MODE and ABOVE do not matter. SIZE 1 gives
        each frame before the next one is read.

        Args:
            frames: Pictures, RGB uint8 [H,W,3] of one size, without end if need be. They are read
                when they are needed, at most a window ahead.

        Yields:
            The objects of each frame, in order, at the size of the frames. The id of an object
            never changes; labels and scores come from its frames so far.

        Raises:
            DataError: There is no frame, a frame is not RGB uint8, or the frames differ in size.
                The frames before have been given by then.
        """
        size, images = self._open(frames)
        for window in iterate_windows(self._video_model.unwrapped, images, size, self.windows):
            for frame in window.frames():
                yield replace(frame, class_names=self.class_names)

    def predict_video(self, path: str | os.PathLike[str], video_id: int = 0) -> dict[str, Any]:
        """Predict the tracks of a video file, or of a folder with one picture per frame.

        Args:
            path: A video that OpenCV can read, or a folder, whose pictures are taken in natural
                order (frame2 before frame10).
            video_id: Passed on to the model.

        Returns:
            The same dict as ``predict``.

        Raises:
            DataError: There is nothing at this path, or no frame can be read.
        """
        return self.predict(open_frames(path), video_id)

    def _predict_whole(
        self, images: list[torch.Tensor], size: tuple[int, int], video_id: int
    ) -> dict[str, Any]:
        batch = {
            "image": images,
            "height": size[0],
            "width": size[1],
            "length": len(images),
            "video_id": video_id,
            "file_names": [""] * len(images),
            "frame_indices": list(range(len(images))),
        }
        with torch.no_grad():
            return self.model([batch])[0]

    def _open(self, frames: Iterable[np.ndarray]) -> tuple[tuple[int, int], Iterator[torch.Tensor]]:
        """Size of the frames, and the prepared frames, each made when it is asked for."""
        source = iter(frames)
        opening = next(source, None)
        if opening is None:
            raise DataError("expected a video with at least one frame, got none.")
        _check_frame(opening, 0)
        size = opening.shape[:2]
        return size, self._prepared(itertools.chain([opening], source), size)

    def _prepared(
        self, frames: Iterable[np.ndarray], size: tuple[int, int]
    ) -> Iterator[torch.Tensor]:
        for index, frame in enumerate(frames):
            _check_frame(frame, index)
            if frame.shape[:2] != size:
                raise DataError(
                    f"frame {index}: expected {size[1]} x {size[0]} pixels like frame 0, got"
                    f" {frame.shape[1]} x {frame.shape[0]}. All frames of a video must have one"
                    " size: resize them, or give the parts one by one."
                )
            yield self._prepare(frame)

    def _prepare(self, frame: np.ndarray) -> torch.Tensor:
        if self._is_bgr:
            frame = frame[:, :, ::-1]
        resized = self._resize.get_transform(frame).apply_image(frame)
        return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))


def _check_frame(frame: np.ndarray, index: int) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise DataError(
            f"frame {index}: expected an RGB picture, uint8 [H,W,3], got {frame.dtype}"
            f" {list(frame.shape)}."
        )


def _popping(items: deque[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The items, each removed when it is given, so that it does not stay in memory."""
    while items:
        yield items.popleft()
