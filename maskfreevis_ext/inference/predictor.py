"""From frames to tracks with a trained model: the whole clip at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms
from torch import nn

from maskfreevis_ext.errors import DataError


class VideoPredictor:
    """Runs a model on the frames of a video, prepared as the test loader prepares them.

    Args:
        model: A model in eval mode's contract: a list of one batch dict in, a list of one
            prediction out.
        min_size: Shorter side that frames are resized to, in pixels; 0 leaves them as they are.
        max_size: Largest longer side after resizing.
        image_format: Channel order that the model takes, "RGB" or "BGR".
    """

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
    def from_config(cls, cfg: CfgNode, model: nn.Module) -> VideoPredictor:
        """A predictor with a config's INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST and FORMAT.

        Args:
            cfg: The config that the model was built from.
            model: The model, with its weights.
        """
        return cls(
            model,
            min_size=cfg.INPUT.MIN_SIZE_TEST,
            max_size=cfg.INPUT.MAX_SIZE_TEST,
            image_format=cfg.INPUT.FORMAT,
        )

    def __call__(self, frames: Iterable[np.ndarray], video_id: int = 0) -> dict[str, Any]:
        """Predict the tracks of a video.

        Args:
            frames: T >= 1 pictures, RGB uint8 [H,W,3] of one size. Each is resized as it comes;
                only the small ones stay in memory.
            video_id: Passed on to the model.

        Returns:
            ``image_size`` (H, W), ``pred_scores`` list of float, ``pred_labels`` list of int
            (contiguous, from 0) and ``pred_masks`` list of bool CPU tensors [T,H,W]. The surest
            track comes first. With a spatial mask head also ``dynamic_mask``, uint8 [T,H,W].

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
        order = sorted(
            range(len(prediction["pred_scores"])), key=lambda i: -prediction["pred_scores"][i]
        )
        extra = {key: prediction[key] for key in ("dynamic_mask",) if key in prediction}
        return {
            "image_size": size,
            **extra,
            **{
                key: [prediction[key][i] for i in order]
                for key in ("pred_scores", "pred_labels", "pred_masks")
            },
        }

    def _prepare(self, frame: np.ndarray) -> torch.Tensor:
        if self._is_bgr:
            frame = frame[:, :, ::-1]
        resized = self._resize.get_transform(frame).apply_image(frame)
        return torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
