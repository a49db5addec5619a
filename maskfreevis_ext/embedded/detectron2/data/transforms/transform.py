"""Transforms that fvcore lacks: resizing and rotation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms.transform import Transform
from PIL import Image

_TORCH_MODES: dict[int, str] = {
    Image.Resampling.NEAREST: "nearest",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}


class ResizeTransform(Transform):
    """Resizes an image: with Pillow where it is uint8, with torch otherwise.

    Args:
        h: Height before.
        w: Width before.
        new_h: Height after.
        new_w: Width after.
        interp: Interpolation of Pillow; bilinear by default.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        super().__init__()
        self.h, self.w = h, w
        self.new_h, self.new_w = new_h, new_w
        self.interp = Image.Resampling.BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an array [h, w], [h, w, C] or more.

        Raises:
            AssertionError: The image has another size than (h, w).
        """
        if img.shape[:2] != (self.h, self.w):
            raise AssertionError(f"Image of size {img.shape[:2]}, expected {(self.h, self.w)}.")
        interp = self.interp if interp is None else interp
        if img.dtype != np.uint8:
            return self._resize_with_torch(img, interp)
        is_single = img.ndim > 2 and img.shape[2] == 1
        image = Image.fromarray(img[:, :, 0] if is_single else img)
        resized = np.asarray(image.resize((self.new_w, self.new_h), interp))
        return resized[:, :, None] if is_single else resized

    def _resize_with_torch(self, img: np.ndarray, interp: int) -> np.ndarray:
        mode = _TORCH_MODES[interp]
        tensor = torch.from_numpy(np.ascontiguousarray(img))
        extra = tensor.shape[2:]
        tensor = tensor.view(self.h, self.w, *([1] * (2 - len(extra))), *extra).permute(2, 3, 0, 1)
        resized = F.interpolate(
            tensor,
            (self.new_h, self.new_w),
            mode=mode,
            align_corners=None if mode == "nearest" else False,
        )
        return resized.permute(2, 3, 0, 1).reshape(self.new_h, self.new_w, *extra).numpy()

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale points [N, 2] (x, y), in place."""
        coords[:, 0] = coords[:, 0] * (self.new_w * 1.0 / self.w)
        coords[:, 1] = coords[:, 1] * (self.new_h * 1.0 / self.h)
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize labels by nearest neighbour."""
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)


def _opencv() -> Any:
    """OpenCV, which is imported when something is rotated: it takes long to load."""
    import cv2

    return cv2


class RotationTransform(Transform):
    """Rotates an image counter-clockwise.

    Args:
        h: Height before.
        w: Width before.
        angle: Degrees.
        expand: Make the image so large that nothing is cut off; otherwise it keeps its size.
        center: (x, y) of the fixed point, by default the image's centre. Without effect if
            ``expand``.
        interp: Interpolation of OpenCV; linear by default.
    """

    def __init__(
        self,
        h: int,
        w: int,
        angle: float,
        expand: bool = True,
        center: tuple[float, float] | None = None,
        interp: int | None = None,
    ) -> None:
        super().__init__()
        self.h, self.w, self.angle, self.expand = h, w, angle, expand
        self.image_center = np.array((w / 2, h / 2))
        self.center = self.image_center if center is None else center
        self.interp = _opencv().INTER_LINEAR if interp is None else interp
        self.bound_w, self.bound_h = w, h
        if expand:
            cos, sin = abs(np.cos(np.deg2rad(angle))), abs(np.sin(np.deg2rad(angle)))
            size = np.rint([h * sin + w * cos, h * cos + w * sin]).astype(int)
            self.bound_w, self.bound_h = size
        self.rm_coords = self._rotation_matrix(0.0)
        self.rm_image = self._rotation_matrix(
            -0.5
        )  # OpenCV's pixels have their centres at integers

    def _rotation_matrix(self, offset: float) -> np.ndarray:
        center = (self.center[0] + offset, self.center[1] + offset)
        matrix = _opencv().getRotationMatrix2D(center, self.angle, 1)
        if self.expand:
            moved = _opencv().transform(self.image_center[None, None, :] + offset, matrix)[0, 0, :]
            target = np.array([self.bound_w / 2, self.bound_h / 2]) + offset
            matrix[:, 2] = matrix[:, 2] + (target - moved)
        return matrix

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Rotate an array [h, w] or [h, w, C]; uncovered pixels are 0.

        Raises:
            AssertionError: The image has another size than (h, w).
        """
        if len(img) == 0 or self.angle % 360 == 0:
            return img
        if img.shape[:2] != (self.h, self.w):
            raise AssertionError(f"Image of size {img.shape[:2]}, expected {(self.h, self.w)}.")
        return _opencv().warpAffine(
            img,
            self.rm_image,
            (int(self.bound_w), int(self.bound_h)),
            flags=self.interp if interp is None else interp,
        )

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Rotate points [N, 2] (x, y)."""
        coords = np.asarray(coords, dtype=float)
        if len(coords) == 0 or self.angle % 360 == 0:
            return coords
        return _opencv().transform(coords[:, np.newaxis, :], self.rm_coords)[:, 0, :]

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Rotate labels by nearest neighbour."""
        return self.apply_image(segmentation, interp=_opencv().INTER_NEAREST)
