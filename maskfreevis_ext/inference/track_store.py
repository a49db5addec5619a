"""Collects the windows of a video to the prediction for the whole video; masks stay encoded.

Shape letters: N tracks, T frames of the video, C classes, (H, W) size of the video.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from maskfreevis_ext.inference.linking import Track
from maskfreevis_ext.inference.window import WindowResult
from maskfreevis_ext.ops.clip import apply_factors, select_pairs
from maskfreevis_ext.rle import encode_masks
from maskfreevis_ext.tracks import RleMasks


class TrackStore:
    """The tracks of a video that may still be among its best.

    Args:
        num_tracks: Pairs of track and class to give at the end.
        only_known: Scores from what was known in each frame, see ``PooledScore.mean``.
    """

    def __init__(self, num_tracks: int, only_known: bool = False) -> None:
        self._num_tracks = num_tracks
        self._only_known = only_known
        self._num_frames = 0
        self._tracks: dict[int, Track] = {}
        self._masks: dict[int, list[dict[str, Any] | None]] = {}
        self._extras: dict[str, list[Any]] = defaultdict(list)

    def add(self, result: WindowResult) -> None:
        """Encode and keep the masks of the new frames of a window."""
        for track in result.tracks:
            of_track = self._masks.setdefault(track.track_id, [])
            self._tracks[track.track_id] = track
            of_track.extend([None] * (result.start - len(of_track)))
        for frame in range(result.num_frames):
            masks = result.masks(frame)
            is_visible = masks.flatten(1).any(1).tolist()
            for track, rle, seen in zip(
                result.tracks, encode_masks(masks), is_visible, strict=True
            ):
                self._masks[track.track_id].append(rle if seen else None)
        for name, values in result.extras.items():
            self._extras[name].append(values)
        self._num_frames = result.start + result.num_frames
        self._drop_ended()

    def prediction(self, size: tuple[int, int], where: str) -> dict[str, Any]:
        """The best tracks of all frames.

        Args:
            size: (H, W).
            where: What the masks belong to, for error messages.

        Returns:
            The dict of ``ops.clip.clip_result``, with ``RleMasks`` of T frames as ``pred_masks``,
            and the entries of auxiliary heads.
        """
        ids = sorted(self._tracks)
        means = [self._tracks[each].pooled.mean(self._only_known) for each in ids]
        probs = torch.stack([of_class for of_class, _ in means]) if ids else torch.zeros(0, 1)
        factors = torch.stack([factor for _, factor in means]) if ids else torch.zeros(0)
        scores, labels, rows = apply_factors(*select_pairs(probs, self._num_tracks), factors)
        masks = {}
        for row in set(rows.tolist()):
            of_track = self._masks[ids[row]]
            of_track = of_track + [None] * (self._num_frames - len(of_track))
            masks[row] = RleMasks(of_track, size, f"{where}, track {ids[row]}")
        return {
            "image_size": size,
            "pred_scores": scores.tolist(),
            "pred_labels": labels.tolist(),
            "pred_masks": [masks[row] for row in rows.tolist()],
            **{name: _join(parts) for name, parts in self._extras.items()},
        }

    def _drop_ended(self) -> None:
        """Keep the best of the tracks that have ended, as many as can be in the result."""
        ended = [each for each, track in self._tracks.items() if not track.is_active]
        ended.sort(key=self._best_probability, reverse=True)
        for each in ended[self._num_tracks :]:
            del self._tracks[each], self._masks[each]

    def _best_probability(self, track_id: int) -> float:
        return float(self._tracks[track_id].pooled.mean(self._only_known)[0].max())


def _join(parts: list[Any]) -> Any:
    """Values per frame of successive windows: one tensor, or one list."""
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return [value for part in parts for value in part]
