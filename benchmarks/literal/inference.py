"""Whole-video inference as the formulas say it: all frames, all layers, all masks at once.

T frames, (H, W) their size, Q queries, C classes, K kept pairs, (h, w) mask logits.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def predict_whole_video(
    model: Any, frames: Tensor, output_size: tuple[int, int], num_tracks: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Tracks of a video (Mask2Former for video, arXiv 2112.10764).

    Args:
        model: With ``backbone``, ``sem_seg_head``, ``pixel_mean``, ``pixel_std`` and
            ``size_divisibility``.
        frames: (T, 3, H, W) uint8.
        output_size: Height and width of the masks.
        num_tracks: K.

    Returns:
        Scores (K,), classes (K,) and masks (K, T, *output_size), bool, on the CPU.
    """
    step = model.size_divisibility
    height, width = frames.shape[-2:]
    images = (frames.to(model.pixel_mean.device) - model.pixel_mean) / model.pixel_std
    images = F.pad(images, (0, -width % step, 0, -height % step))
    outputs = model.sem_seg_head(model.backbone(images), len(frames), return_aux=True)
    probs = outputs["pred_logits"][0].softmax(-1)[:, :-1]
    scores, index = probs.flatten().topk(min(num_tracks, probs.numel()))
    logits = outputs["pred_masks"][0][index // probs.shape[1]]
    size = images.shape[-2:]
    logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    logits = logits[..., :height, :width]
    logits = F.interpolate(logits, size=output_size, mode="bilinear", align_corners=False)
    return scores, index % probs.shape[1], (logits > 0).cpu()
