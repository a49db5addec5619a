"""Stored inputs and outputs of the reference implementation.

The .npz files were written by the unmodified reference (float32, CPU); output 0 is the last
decoder output and output l >= 1 is ``aux_outputs[l - 1]``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.ops.boxes import masks_to_boxes

GOLDEN_DIR = Path(__file__).resolve().parent.parent / "golden"


def load_golden(name: str) -> dict[str, np.ndarray]:
    """All arrays of ``tests/golden/{name}.npz``."""
    with np.load(GOLDEN_DIR / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


class CriterionCase:
    """One run of the reference's criterion, with the arrays as our criterion takes them."""

    def __init__(self, name: str) -> None:
        """Load ``tests/golden/{name}.npz``."""
        self.golden = golden = load_golden(name)
        self.has_masks = "images_lab" not in golden
        self.is_cycle = str(golden["variant"]).startswith("nococo")
        self.num_classes = int(golden["num_classes"])
        self.logits = torch.from_numpy(golden["pred_logits"]).float().requires_grad_()
        self.masks = torch.from_numpy(golden["pred_masks"]).float().requires_grad_()
        self.num_layers, self.num_clips = self.masks.shape[:2]
        self.frame_size = golden["images"].shape[-2:]

    @property
    def outputs(self) -> dict:
        """What the decoder would return."""
        layers = [
            {"pred_logits": logits, "pred_masks": masks}
            for logits, masks in zip(self.logits, self.masks, strict=True)
        ]
        return {**layers[0], "aux_outputs": layers[1:]}

    @property
    def frames(self) -> Tensor:
        """Frames with zeros as padding, (B, T, 3, H, W)."""
        images = torch.from_numpy(self.golden["images"]).float()
        divisor = int(self.golden["size_divisibility"])
        height, width = self.frame_size
        return F.pad(images, (0, -width % divisor, 0, -height % divisor))

    def masks_of(self, clip: int) -> Tensor:
        """Masks of the objects of a clip, (N, T, H, W), bool."""
        return torch.from_numpy(self.golden[f"gt_masks_b{clip}"]) > 0

    @property
    def targets(self) -> list[dict[str, Tensor]]:
        """B dicts, with masks in mask mode and with the boxes of those masks in box mode."""
        targets = []
        for clip in range(self.num_clips):
            masks = self.masks_of(clip)
            target = {
                "labels": torch.from_numpy(self.golden[f"labels_b{clip}"]),
                "ids": torch.from_numpy(self.golden[f"ids_b{clip}"]),
                "boxes": masks_to_boxes(masks),
            }
            if self.has_masks:
                target["masks"] = masks
            targets.append(target)
        return targets

    @property
    def matches(self) -> list[list[tuple[Tensor, Tensor]]]:
        """The reference's assignment."""
        return [
            [
                (
                    torch.from_numpy(self.golden[f"match_src_l{layer}_b{clip}"]),
                    torch.from_numpy(self.golden[f"match_tgt_l{layer}_b{clip}"]),
                )
                for clip in range(self.num_clips)
            ]
            for layer in range(self.num_layers)
        ]

    def warmup(self, layer: int) -> float:
        """The reference's warm-up factor, which rises with every decoder output."""
        return min((float(self.golden["iter_before"]) + layer + 1) / 2000, 1.0)

    def expected(self) -> dict[str, float]:
        """Unweighted losses without warm-up, under our names."""
        values = {}
        for name, value in zip(
            self.golden["loss_names"], self.golden["loss_values"].tolist(), strict=True
        ):
            term, layer = self.split(str(name))
            if self.is_cycle and term == "loss_mask":
                name = str(name).replace("loss_mask", "loss_mask_proj")
            values[str(name)] = value / (
                self.warmup(layer) if term == "loss_bound_neighbor" else 1.0
            )
        return values

    @staticmethod
    def split(name: str) -> tuple[str, int]:
        """("loss_x_3") -> ("loss_x", 4): the term and the index of its decoder output."""
        term, _, index = name.rpartition("_")
        return (term, int(index) + 1) if index.isdigit() else (name, 0)
