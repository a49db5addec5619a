"""Hooks of the trainer: pictures of predictions, the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase

from maskfreevis_ext.class_names import class_names_of
from maskfreevis_ext.engine.ema import unwrapped
from maskfreevis_ext.engine.report import try_report
from maskfreevis_ext.inference.drawing import draw_items, resize_frame
from maskfreevis_ext.tracks import Prediction

if TYPE_CHECKING:
    from maskfreevis_ext.engine.trainer import Trainer

#: Tracks with a lower score are not drawn.
MIN_SCORE = 0.3
#: Frames with a shorter side (pixels) are enlarged, so that labels do not cover them.
MIN_HEIGHT = 240


class DrawPredictions(HookBase):
    """Writes frames of a test video with the predicted masks drawn on them to TensorBoard.

    Args:
        cfg: The config; the first of DATASETS.TEST is drawn every VIS_PERIOD iterations.
        max_frames: Frames of the video that are predicted and drawn.
    """

    def __init__(self, cfg: CfgNode, max_frames: int = 4) -> None:
        self._cfg = cfg
        self._max_frames = max_frames
        self._sample: dict | None = None

    def after_step(self) -> None:
        """Predict and draw at every VIS_PERIOD-th iteration."""
        if (self.trainer.iter + 1) % self._cfg.VIS_PERIOD == 0:
            for t, picture in enumerate(self._draw()):
                name = f"predictions/{self._cfg.DATASETS.TEST[0]}/frame_{t}"
                self.trainer.storage.put_image(name, picture.transpose(2, 0, 1))

    def _draw(self) -> list[np.ndarray]:
        sample = self._sample = self._sample or self._load_sample()
        model = unwrapped(self.trainer.evaluated_model)
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                output = model([sample])[0]
        finally:
            model.train(training)
        names = class_names_of(model)
        prediction = Prediction.from_output(output).select(MIN_SCORE)
        frames = self._frames(sample["image"], output["image_size"])
        factor = max(1.0, MIN_HEIGHT / frames[0].shape[0])
        scaled = [
            resize_frame(frame, prediction.items(t, names), factor)
            for t, frame in enumerate(frames)
        ]
        return [draw_items(frame, items) for frame, items in scaled]

    def _load_sample(self) -> dict:
        loader = self.trainer.build_test_loader(self._cfg, self._cfg.DATASETS.TEST[0])
        sample = dict(next(iter(loader))[0])
        for key in ("image", "file_names", "frame_indices"):
            if key in sample:
                sample[key] = sample[key][: self._max_frames]
        sample["length"] = len(sample["image"])
        return sample

    def _frames(self, images: list[torch.Tensor], size: tuple[int, int]) -> list[np.ndarray]:
        """Frames (3, H, W) as RGB pictures of the original size."""
        frames = torch.nn.functional.interpolate(
            torch.stack(images).float(), size=size, mode="bilinear", align_corners=False
        )
        pictures = frames.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        if self._cfg.INPUT.FORMAT == "BGR":
            pictures = pictures[..., ::-1]
        return [np.ascontiguousarray(picture) for picture in pictures]


class WriteReport(HookBase):
    """Writes ``report.html`` after every evaluation and at the end of the training.

    It stands behind Detectron2's writers, so that ``metrics.json`` is complete at the end.

    Args:
        cfg: The config.
    """

    trainer: Trainer

    def __init__(self, cfg: CfgNode) -> None:
        self._cfg = cfg

    def after_step(self) -> None:
        """Write where Detectron2's EvalHook has evaluated."""
        done, period = self.trainer.iter + 1, self._cfg.TEST.EVAL_PERIOD
        if period > 0 and done % period == 0 and done < self.trainer.max_iter:
            self._write()

    def after_train(self) -> None:
        """Write at the end, also of a training that was stopped."""
        self._write()

    def _write(self) -> None:
        results = getattr(self.trainer, "_last_eval_results", None)  # unset before an evaluation
        try_report(self._cfg, results, self.trainer.storage.latest())
