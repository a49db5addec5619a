"""Joins the objects of successive windows to tracks: query embeddings, mask overlap, Hungarian.

Without shared frames (windows of one frame) this is the linking of MinVIS (arXiv 2208.02245), with
tracks that begin and end. Shape letters: N tracks, Q queries, O shared frames, C classes, D
channels, (h, w) map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from maskfreevis_ext.errors import NumericError

#: Weight of a new embedding in the memory of its track.
_MOMENTUM = 0.5
#: A query continues a track from this similarity on.
MIN_SIMILARITY = 0.5


@dataclass(eq=False)
class Track:
    """One object, as far as it is known.

    Attributes:
        track_id: From 1, in the order in which the tracks began.
        embedding: Mean of the object's query embeddings, later ones weighted more, (D,), length 1.
        masks: Masks in the last window where it was seen, bool (T, h, w).
        end: Number of the frame after that window.
        pooled: What is known of its class.
        is_active: False: the track has ended; it gets no further frames.
    """

    track_id: int
    embedding: Tensor
    masks: Tensor
    end: int
    pooled: PooledScore
    is_active: bool = True


class PooledScore:
    """Class probabilities and score factor of a track: means over its frames.

    Sums are kept in float64: the mean over one window is its value, bit for bit.
    """

    def __init__(self) -> None:
        self.num_frames = 0
        self._sum = torch.zeros((), dtype=torch.float64)  # (C + 1,) from the first window on
        self._sum_known = self._sum

    def add(self, probs: Tensor, factor: Tensor, num_frames: int) -> None:
        """Count the frames of a window.

        Args:
            probs: Class probabilities in this window, (C,) float32.
            factor: Factor of the auxiliary heads, a scalar in [0, 1].
            num_frames: Frames that count.
        """
        values = torch.cat([probs, factor[None]]).double()
        self._sum = self._sum + num_frames * values
        self.num_frames += num_frames
        self._sum_known = self._sum_known + num_frames * (self._sum / self.num_frames)

    def mean(self, only_known: bool = False) -> tuple[Tensor, Tensor]:
        """Means over the frames of the track.

        Args:
            only_known: In each frame take the mean of this frame and those before it, and then the
                mean of these: nothing that was not known when the frame was processed.

        Returns:
            Class probabilities (C,) and the factor, a scalar; float32.
        """
        total = self._sum_known if only_known else self._sum
        values = (total / self.num_frames).float()
        return values[:-1], values[-1]

    def label_and_score(self) -> tuple[int, float]:
        """Most probable class, and its probability times the factor."""
        probs, factor = self.mean()
        label = int(probs.argmax())
        return label, float(probs[label] * factor)


@dataclass(frozen=True)
class WindowObjects:
    """What the decoder says of a window, as linking needs it.

    Attributes:
        embeddings: Of all queries, (Q, D), length 1.
        masks: Of all queries, bool (Q, T, h, w).
        start: Number of the first frame of the window.
    """

    embeddings: Tensor
    masks: Tensor
    start: int

    @classmethod
    def from_outputs(cls, outputs: dict[str, Tensor], start: int) -> WindowObjects:
        """Of the decoder's outputs without a batch axis.

        Args:
            outputs: ``queries`` (Q, D) and ``pred_masks`` (Q, T, h, w), logits.
            start: Number of the first frame of the window.
        """
        embeddings = F.normalize(outputs["queries"].float(), dim=1)
        return cls(embeddings, outputs["pred_masks"] > 0, start)


def mask_overlap(tracks: Sequence[Track], window: WindowObjects) -> tuple[Tensor, Tensor]:
    """IoU of tracks and queries in the frames that a track's last window shares with this one.

    Args:
        tracks: N tracks.
        window: The window.

    Returns:
        IoU (N, Q) float32, intersections and unions summed over the shared frames; and whether a
        track has a mask there to compare with, (N,) bool. Both on the device of the window.
    """
    shared = max((track.end for track in tracks), default=0) - window.start
    num_queries, device = len(window.masks), window.masks.device
    overlap = torch.zeros(len(tracks), num_queries, device=device)
    area = torch.zeros(len(tracks), device=device)
    union = torch.zeros(len(tracks), num_queries, device=device)
    for frame in range(max(shared, 0)):
        with_frame = [n for n, t in enumerate(tracks) if t.end > window.start + frame]
        rows = torch.tensor(with_frame, device=device)
        ours = torch.stack(
            [tracks[n].masks[frame - (tracks[n].end - window.start)] for n in with_frame]
        )
        ours, theirs = ours.flatten(1).float(), window.masks[:, frame].flatten(1).float()
        both = ours @ theirs.T  # whole numbers below 2^24: exact
        overlap[rows] += both
        area[rows] += ours.sum(1)
        union[rows] += ours.sum(1)[:, None] + theirs.sum(1) - both
    return overlap / union.clamp(min=1), area > 0


class TrackLinker:
    """Holds the tracks of one video and continues them from window to window.

    Args:
        gap: Frames for which a track that is not seen is remembered.
        max_tracks: Tracks held at most; beyond, those with the lowest scores end.
    """

    def __init__(self, gap: int, max_tracks: int) -> None:
        self.tracks: list[Track] = []
        self._gap = gap
        self._max_tracks = max_tracks
        self._count = 0

    def link(self, window: WindowObjects, candidates: Sequence[int]) -> dict[int, Track]:
        """Continue tracks with the queries of a window, and begin tracks.

        The sum of the similarities of tracks and queries is made largest. A query that continues no
        track begins one if it is a candidate.

        Args:
            window: What the decoder says of the window.
            candidates: Queries that may begin a track.

        Returns:
            Track by query, in the order of the queries; embedding, masks and end of the tracks are
            those of this window. Tracks of other queries were not seen.

        Raises:
            NumericError: The embeddings are not finite.
        """
        self._forget(window.start)
        found = {query: self.tracks[row] for row, query in self._assign(window)}
        for query in candidates:
            if query not in found:
                found[query] = self._begin(window.embeddings[query])
        end = window.start + window.masks.shape[1]
        for query, track in found.items():
            mean = torch.lerp(track.embedding, window.embeddings[query], _MOMENTUM)
            track.embedding = F.normalize(mean, dim=0)
            track.masks, track.end = window.masks[query].clone(), end
        return dict(sorted(found.items()))

    def prune(self) -> None:
        """End the tracks beyond ``max_tracks``, those that were not seen lately first."""
        if len(self.tracks) <= self._max_tracks:
            return
        order = sorted(
            self.tracks, key=lambda track: (-track.end, -track.pooled.label_and_score()[1])
        )
        for track in order[self._max_tracks :]:
            track.is_active = False
        self.tracks = [track for track in self.tracks if track.is_active]

    def _assign(self, window: WindowObjects) -> list[tuple[int, int]]:
        """Pairs of a track's place in the list and a query."""
        if not self.tracks:
            return []
        cosine = torch.stack([track.embedding for track in self.tracks]) @ window.embeddings.T
        iou, has_mask = mask_overlap(self.tracks, window)
        similarity = torch.where(has_mask[:, None], (cosine + iou) / 2, cosine)
        values = similarity.cpu().double().numpy()
        if not np.isfinite(values).all():
            raise NumericError(
                f"frames from {window.start} on: the query embeddings of the model are not finite."
                " Are its weights damaged?"
            )
        values[values < MIN_SIMILARITY] = 0
        rows, queries = linear_sum_assignment(values, maximize=True)
        pairs = zip(rows.tolist(), queries.tolist(), strict=True)
        return [(row, query) for row, query in pairs if values[row, query] > 0]

    def _begin(self, embedding: Tensor) -> Track:
        self._count += 1
        nothing = torch.zeros(0, dtype=torch.bool, device=embedding.device)
        track = Track(self._count, embedding, nothing, 0, PooledScore())
        self.tracks.append(track)
        return track

    def _forget(self, start: int) -> None:
        """End the tracks that were not seen for longer than the gap."""
        for track in self.tracks:
            track.is_active = start - track.end <= self._gap
        self.tracks = [track for track in self.tracks if track.is_active]
