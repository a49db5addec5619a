"""A made-up clip: a two-coloured disc that moves over a textured ground."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

SIZE = (64, 96)
NUM_FRAMES = 4
RADIUS = 14


def disc_clip() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Frames RGB, boxes (1, T, 4) and masks (1, T, H, W); absent from the last frame."""
    random = np.random.RandomState(0)
    ground = random.randint(0, 60, (*SIZE, 3)) + np.array([30, 90, 30])
    rows, cols = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    frames, boxes, masks = [], [], []
    for t in range(NUM_FRAMES):
        y, x = 30, 30 + 8 * t
        mask = (rows - y) ** 2 + (cols - x) ** 2 <= RADIUS**2
        mask &= t < NUM_FRAMES - 1
        frame = np.roll(ground, t, axis=1).astype(np.uint8)
        frame[mask & (cols < x)] = 220, 40, 40
        frame[mask & (cols >= x)] = 240, 220, 60
        box = (x - RADIUS, y - RADIUS, x + RADIUS + 1, y + RADIUS + 1) if mask.any() else (0,) * 4
        frames.append(frame)
        boxes.append(box)
        masks.append(mask)
    return frames, np.array([boxes], dtype=float), np.array([masks])


def carried_clip(length: int = 4) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """An L of one colour that carries a block of another, which its boxes do not tell from it.

    Frames RGB, boxes (1, T, 4) and masks (1, T, H, W).
    """
    random = np.random.RandomState(0)
    ground = random.randint(0, 60, (*SIZE, 3)) + np.array([30, 90, 30])
    frames, boxes, masks = [], [], []
    for t in range(length):
        x, y = 20 + 18 * t // (length - 1), 16
        frame = np.roll(ground, t, axis=1).astype(np.uint8)
        frame[y : y + 32, x : x + 32] = 240, 220, 60
        mask = np.zeros(SIZE, dtype=bool)
        mask[y : y + 32, x : x + 10] = True
        mask[y + 24 : y + 32, x : x + 32] = True
        frame[mask] = 200, 40, 160
        frames.append(frame)
        boxes.append((x, y, x + 32, y + 32))
        masks.append(mask)
    return frames, np.array([boxes], dtype=float), np.array([masks])


class Colours(nn.Module):
    """Stands in for a backbone: smoothed colours at strides 4 and 8."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = torch.nn.functional.avg_pool2d(images, 4)
        return {"res2": fine, "res3": torch.nn.functional.avg_pool2d(fine, 2)}
