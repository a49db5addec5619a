"""Prediction of tracks with a trained model; the whole video is processed at once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms
from torch import nn

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.video_io import open_frames
from maskfreevis_ext.tracks import Prediction


class VideoPredictor:
    """Runs a model on the frames of a video, which it prepares like the test loader.

    ``VideoPredictor(cfg, model)`` reads sizes and channel order from the config keys
    INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST and INPUT.FORMAT.

    Args:
        model: The model; in eval mode it maps a list of one batch dict to a list of one prediction.
        min_size: Length of the shorter side after resizing, in pixels; 0: frames are not resized.
        max_size: Largest length of the longer side after resizing.
        image_format: Channel order of the model's input, "RGB" or "BGR".
    """

    @configurable
    def __init__(
        self,
        model: nn.Module,
        *,
        min_size: int = 360,
        max_size: int = 1333,
        image_format: str = "RGB",
    ) -> None:
        self.model = model.eval()
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
        }

    def __call__(self, frames: Iterable[np.ndarray], video_id: int = 0) -> dict[str, Any]:
        """Predict the tracks of a video.

        Args:
            frames: T >= 1 pictures, RGB uint8 [H,W,3] of one size. Each is resized when it is read,
                and only the resized frames stay in memory.
            video_id: Passed on to the model.

        Returns:
            ``image_size``, the (H, W) of the frames, and three lists with one entry per track, the
            highest score first: ``pred_scores``, float in [0, 1]; ``pred_labels``, int, the number
            of the class from 0; ``pred_masks``, bool CPU tensor [T,H,W] at the size of the frames.
            Also the results of the auxiliary heads: with a spatial mask head ``dynamic_mask``,
            uint8 CPU tensor [T,H,W], its probabilities times 255.

        Raises:
            DataError: There is no frame.
        """
        images, size = [], None
        for frame in frames:
            if size is None:
                size = frame.shape[:2]
            images.append(self._prepare(frame))
        if size is None:
            raise DataError("expected a video with at least one frame, got none.")
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
            prediction = self.model([batch])[0]
        tracks = Prediction.from_output(prediction)
        by_track = {
            "pred_scores": tracks.scores,
            "pred_labels": tracks.labels,
            "pred_masks": tracks.masks,
        }
        return {**prediction, "image_size": size, **by_track}

    def predict_video(self, path: str | os.PathLike[str], video_id: int = 0) -> dict[str, Any]:
        """Predict the tracks of a video file, or of a folder with one picture per frame.

        Args:
            path: A video that OpenCV can read, or a folder, whose pictures are taken in natural
                order (frame2 before frame10).
            video_id: Passed on to the model.

        Returns:
            The same dict as ``__call__``.

        Raises:
            DataError: There is nothing at this path, or no frame can be read.
        """
        return self(open_frames(path), video_id)

    def _prepare(self, frame: np.ndarray) -> torch.Tensor:
        if self._is_bgr:
            frame = frame[:, :, ::-1]
        resized = self._resize.get_transform(frame).apply_image(frame)
        return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
