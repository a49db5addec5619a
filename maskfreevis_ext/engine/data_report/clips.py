"""Clips as the model sees them, with what the colour and temporal terms find in them.

Shape letters: T frames, N tracks, E frame pairs, R search positions, (h, w) cells of the masks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.inference.drawing import SheetRow, draw_items, resize_frame
from maskfreevis_ext.losses.affinities import Affinities, AffinitySettings, compute_affinities
from maskfreevis_ext.ops.boxes import box_profiles
from maskfreevis_ext.ops.neighbors import pair_slices
from maskfreevis_ext.tracks import Item, make_label

STRIDE = 4  #: Pixels per cell of the masks in training.
_SHOWN_HEIGHT = 360  # pixels of a drawn frame, at least
_ROWS_SHOWN = 40  # about as many rows of cells are drawn, so that single ones can be seen
_MATCH, _STAYS, _NONE = (255, 220, 0), (0, 200, 255), (255, 60, 60)

LEGEND = (
    "Lower row: cells inside boxes (some of them), for each pair of frames. Blue: a match at the"
    " same place. Yellow line: to a match elsewhere. Red: no match."
)


@dataclass(frozen=True)
class Signals:
    """What supervises the masks inside the boxes of a clip.

    Attributes:
        num_cells: Cells inside boxes, over all frames.
        num_edges: Those with an edge to a neighbour of similar colour.
        num_pair_cells: Cells inside boxes of the later frame, over all frame pairs.
        num_matched: Those with a temporal match.
    """

    num_cells: int = 0
    num_edges: int = 0
    num_pair_cells: int = 0
    num_matched: int = 0

    def __add__(self, other: Signals) -> Signals:
        """Counts of both."""
        return Signals(
            self.num_cells + other.num_cells,
            self.num_edges + other.num_edges,
            self.num_pair_cells + other.num_pair_cells,
            self.num_matched + other.num_matched,
        )

    @property
    def edge_share(self) -> float:
        """Percent of the cells inside boxes that have a colour edge; 0 without a cell."""
        return 100 * self.num_edges / max(self.num_cells, 1)

    @property
    def match_share(self) -> float:
        """Percent of the cells inside boxes that have a temporal match; 0 without a cell."""
        return 100 * self.num_matched / max(self.num_pair_cells, 1)

    def lines(self) -> list[str]:
        """The shares, in words."""
        return [
            f"{self.edge_share:.0f} % of the cells inside boxes have a colour edge to a neighbour.",
            f"{self.match_share:.0f} % of the cells inside boxes have a temporal match.",
        ]


@dataclass(frozen=True)
class SeenClip:
    """A sample of the mapper with its affinities.

    Attributes:
        sample: The sample.
        frames: T frames uint8 (H, W, 3), RGB.
        affinities: Edges and matches of the clip.
        in_box: Cells inside a box, bool (T, h, w).
        has_match: Cells of the later frame with a match, bool (E, h, w).
        signals: Their counts.
    """

    sample: Mapping[str, Any]
    frames: list[np.ndarray]
    affinities: Affinities
    in_box: Tensor
    has_match: Tensor
    signals: Signals


def look_at(sample: Mapping[str, Any], image_format: str, settings: AffinitySettings) -> SeenClip:
    """Compute what the colour and temporal terms see in a sample.

    Args:
        sample: Of the training mapper.
        image_format: INPUT.FORMAT.
        settings: Thresholds and windows of the terms.
    """
    images = torch.stack(list(sample["image"])).float()
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE))[None]
    found = compute_affinities(padded, [(height, width)], STRIDE, settings)
    map_size = (padded.shape[-2] // STRIDE, padded.shape[-1] // STRIDE)
    rows, cols = box_profiles(sample["tracks"]["boxes"], map_size, STRIDE)
    in_box = (rows[..., :, None] * cols[..., None, :] >= 0.5).any(0)
    if not len(sample["tracks"]["boxes"]):
        in_box = torch.zeros(len(images), *map_size, dtype=torch.bool)
    has_edge = torch.zeros_like(in_box)
    for offset, edge in zip(found.edge_offsets, found.edges, strict=True):
        for window in pair_slices(offset, *map_size):
            has_edge[(..., *window)] |= edge[0]
    has_match = found.matches[0].any(1)
    later = in_box[[second for _, second in found.pairs]]
    signals = Signals(
        int(in_box.sum()),
        int((in_box & has_edge).sum()),
        int(later.sum()),
        int((later & has_match).sum()),
    )
    frames = [image.permute(1, 2, 0).numpy() for image in sample["image"]]
    if image_format == "BGR":
        frames = [frame[:, :, ::-1] for frame in frames]
    frames = [np.ascontiguousarray(frame) for frame in frames]
    return SeenClip(sample, frames, found, in_box, has_match, signals)


def objects_of(sample: Mapping[str, Any], t: int, class_names: Sequence[str]) -> list[Item]:
    """The objects of a frame of a sample, for drawing.

    Args:
        sample: Of the training mapper.
        t: Frame of the clip.
        class_names: Name of each label.
    """
    tracks = sample["tracks"]
    masks = tracks.get("masks", tracks.get("teacher_masks"))
    items = []
    for row in np.flatnonzero(tracks["ids"][:, t].numpy() >= 0):
        track_id = int(tracks["ids"][row, t])
        label = make_label(class_names[int(tracks["labels"][row])], track_id)
        mask = masks[row, t].numpy() if masks is not None else None
        x0, y0, x1, y1 = tracks["boxes"][row, t].tolist()
        items.append(Item(track_id, label, mask, (x0, y0, x1, y1)))
    return items


def clip_rows(clip: SeenClip, class_names: Sequence[str]) -> list[SheetRow]:
    """Two rows of pictures: the objects of each frame, and the matches of frame pairs.

    Args:
        clip: The clip.
        class_names: Name of each label.
    """
    sample = clip.sample
    cells = []
    for t, frame in enumerate(clip.frames):
        factor = max(1.0, _SHOWN_HEIGHT / frame.shape[0])
        shown, items = resize_frame(frame, objects_of(sample, t, class_names), factor)
        cells.append(draw_items(shown, items))
    indices = sample["frame_indices"]
    captions = [
        f"frame {index} {os.path.basename(name)}"
        for index, name in zip(indices, sample["file_names"], strict=True)
    ]
    rows = [
        SheetRow(
            f"video {sample['video_id']}, {sample['supervision']} supervision", cells, captions
        )
    ]
    pairs = clip.affinities.pairs[: len(clip.frames)]
    if pairs:
        shares = clip.signals
        rows.append(
            SheetRow(
                f"cells in boxes: {shares.match_share:.0f} % matched, {shares.edge_share:.0f} %"
                " with a colour edge",
                [draw_matches(clip, number) for number in range(len(pairs))],
                [f"frame {indices[b]}, matches in frame {indices[a]}" for a, b in pairs],
            )
        )
    return rows


def draw_matches(clip: SeenClip, pair: int) -> np.ndarray:
    """The later frame of a pair with the matches of the cells inside boxes; see ``LEGEND``.

    Args:
        clip: The clip.
        pair: Number of the frame pair.

    Returns:
        RGB uint8 picture.
    """
    _, later = clip.affinities.pairs[pair]
    frame = clip.frames[later]
    factor = max(1.0, _SHOWN_HEIGHT / frame.shape[0])
    picture, _ = resize_frame(frame, [], factor)
    picture = (picture * 0.6).astype(np.uint8)
    matches = clip.affinities.matches[0, pair].numpy()  # (R, h, w)
    offsets = clip.affinities.search_offsets
    step = STRIDE * factor
    every = max(1, matches.shape[1] // _ROWS_SHOWN)
    cells = np.argwhere(clip.in_box[later].numpy())
    cells = cells[(cells % every == 0).all(1)]

    def place(y: float, x: float) -> tuple[int, int]:
        return round((x + 0.5) * step), round((y + 0.5) * step)

    for y, x in cells:
        for number in np.flatnonzero(matches[:, y, x]):
            dy, dx = offsets[number]
            cv2.line(picture, place(y, x), place(y + dy, x + dx), _MATCH, 1, cv2.LINE_AA)
    for y, x in cells:
        found = [offsets[number] for number in np.flatnonzero(matches[:, y, x])]
        color = _STAYS if (0, 0) in found else _MATCH if found else _NONE
        cv2.circle(picture, place(y, x), max(1, round(step * every / 6)), color, -1, cv2.LINE_AA)
    return picture
