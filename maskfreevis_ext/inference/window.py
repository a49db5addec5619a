"""Inference in windows: videos of any length in the memory of a short clip.

Backbone and pixel decoder see each frame once, the decoder sees overlapping windows, and the
objects of the windows are linked to tracks. A frame's masks are those of the first window that it
is in. Shape letters: T frames of a window, S new ones among them, N tracks that it has, (H, W) size
of the video.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor

from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.frame_tracks import FrameTracks
from maskfreevis_ext.inference.linking import Track, TrackLinker, WindowObjects
from maskfreevis_ext.modeling.encoded_frames import EncodedFrames
from maskfreevis_ext.modeling.meta_arch import VideoMaskFormer
from maskfreevis_ext.ops.clip import (
    FrameSizes,
    class_probabilities,
    resize_masks,
    select_tracks,
)

#: Tracks that are held, for each track that a window may begin.
_HELD_PER_NEW = 2


@dataclass(frozen=True)
class WindowSettings:
    """Settings of the windows (``TEST.WINDOW``).

    Attributes:
        mode: "off": whole videos at once. "offline": the scores of a track come from all its
            frames. "online": in each frame they come from this frame and those before it.
        size: Frames of a window.
        stride: Frames from one window to the next, 1..size.
        above: Videos of more frames are processed in windows, others at once.
        gap: Frames for which a track that is not seen is remembered.
    """

    mode: str = "offline"
    size: int = 16
    stride: int = 14
    above: int = 64
    gap: int = 30

    @classmethod
    def from_config(cls, cfg: CfgNode) -> WindowSettings:
        """The settings of a config."""
        node = cfg.TEST.WINDOW
        return cls(node.MODE, node.SIZE, node.STRIDE, node.ABOVE, node.GAP)

    def longest_whole(self) -> int | None:
        """Frames of the longest video that is processed at once; None: any."""
        return None if self.mode == "off" else self.above


@dataclass(frozen=True)
class WindowResult:
    """The new frames of a window.

    Attributes:
        start: Number of the first new frame.
        tracks: The N tracks that were seen in the window, in the order of their queries. Their
            pooled scores include this window.
        logits: Mask logits of the padded new frames, (N, S, h, w).
        sizes: Sizes of the frames.
        extras: Entries of auxiliary heads, one value per new frame each.
    """

    start: int
    tracks: list[Track]
    logits: Tensor
    sizes: FrameSizes
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """S."""
        return self.logits.shape[1]

    def masks(self, frame: int) -> Tensor:
        """Masks of a new frame at the size of the video, made when they are asked for.

        Args:
            frame: 0..S - 1.

        Returns:
            (N, H, W) bool, on the CPU.
        """
        return resize_masks(self.logits[:, frame : frame + 1], *self.sizes)[:, 0]

    def frames(self) -> Iterator[FrameTracks]:
        """The objects of each new frame."""
        known = [track.pooled.label_and_score() for track in self.tracks]
        ids = np.array([track.track_id for track in self.tracks], np.int64)
        labels = np.array([label for label, _ in known], np.int64)
        scores = np.array([score for _, score in known], np.float32)
        order = np.argsort(-scores, kind="stable")
        for t in range(self.num_frames):
            masks = self.masks(t).numpy()
            seen = order[masks[order].any((1, 2))]
            yield FrameTracks(
                self.start + t,
                ids[seen],
                labels[seen],
                scores[seen],
                masks[seen],
                {name: values[t] for name, values in self.extras.items()},
            )


def _batches(frames: Iterable[Tensor], size: int, stride: int) -> Iterator[list[Tensor]]:
    """The new frames of each window: ``size`` for the first, then ``stride``; fewer at the end.

    Frames that were read before the source failed are given first.
    """
    source, wanted = iter(frames), size
    while True:
        batch: list[Tensor] = []
        failure = None
        while len(batch) < wanted:
            try:
                batch.append(next(source))
            except StopIteration:
                break
            except DataError as error:
                failure = error
                break
        if batch:
            yield batch
        if failure is not None:
            raise failure
        if len(batch) < wanted:
            return
        wanted = stride


def encoded_windows(
    model: VideoMaskFormer, frames: Iterable[Tensor], size: int, stride: int
) -> Iterator[tuple[EncodedFrames, int]]:
    """The encoded frames of each window, and how many of them are new, which are the last ones.

    Every window has ``size`` frames, unless the video has fewer: the last one overlaps more.

    Args:
        model: The model, in eval mode.
        frames: Frames of one size, (3, H, W) uint8; read when they are needed.
        size: Frames of a window.
        stride: Frames from one window to the next.

    Raises:
        DataError: The source fails; the frames before have been given by then.
    """
    held: EncodedFrames | None = None
    for batch in _batches(frames, size, stride):
        encoded = model.encode(torch.stack(batch))
        if held is not None:
            kept = min(size - len(batch), held.num_frames)
            encoded = EncodedFrames.join((held.last(kept), encoded), kept + len(batch))
        held = encoded
        yield encoded, len(batch)


@torch.no_grad()
def iterate_windows(
    model: VideoMaskFormer,
    frames: Iterable[Tensor],
    output_size: tuple[int, int],
    settings: WindowSettings,
) -> Iterator[WindowResult]:
    """Process a video window by window.

    Args:
        model: The model, in eval mode.
        frames: Frames of one size, (3, H, W) uint8; read when they are needed.
        output_size: (H, W) of the masks.
        settings: Size, stride and gap.

    Yields:
        The new frames of each window, as soon as it is processed.

    Raises:
        DataError: The source of the frames fails; the frames before have been given by then.
    """
    source = iter(frames)
    opening = next(source, None)
    if opening is None:
        return
    sizes = model.frame_sizes((opening.shape[-2], opening.shape[-1]), output_size)
    source = itertools.chain([opening], source)
    linker = TrackLinker(settings.gap, _HELD_PER_NEW * model.num_tracks)
    start = 0
    for encoded, num_new in encoded_windows(model, source, settings.size, settings.stride):
        outputs = model.decode(encoded)
        window = WindowObjects.from_outputs(outputs, start + num_new - encoded.num_frames)
        result = _process(model, outputs, window, linker, num_new, sizes)
        del encoded, outputs, window  # not beside those of the next window
        yield result
        start += num_new


def _process(
    model: VideoMaskFormer,
    outputs: dict[str, Tensor],
    window: WindowObjects,
    linker: TrackLinker,
    num_new: int,
    sizes: FrameSizes,
) -> WindowResult:
    """Link the objects of a window, and make the masks of its new frames."""
    probs = class_probabilities(outputs["pred_logits"])
    _, _, best = select_tracks(outputs["pred_logits"], model.num_tracks)
    found = linker.link(window, best.unique().tolist())
    queries, tracks = list(found), list(found.values())
    logits, factors = model.rate(outputs, torch.tensor(queries, device=probs.device))
    probs, factors = probs[queries].cpu(), factors.cpu()
    for track, of_class, factor in zip(tracks, probs, factors, strict=True):
        track.pooled.add(of_class, factor, num_new)
    linker.prune()
    return WindowResult(
        window.start + window.masks.shape[1] - num_new,
        tracks,
        logits[:, -num_new:],
        sizes,
        {name: each[-num_new:] for name, each in model.head_results(outputs, sizes).items()},
    )
