"""Conversion of the network's outputs to tracks: selection, and masks at the video's size.

Shape letters: T frames, Q queries, C classes, K kept tracks, (h, w) size of the mask logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maskfreevis_ext.out_of_memory import once_more


class FrameSizes(NamedTuple):
    """Sizes of the frames of a video, (height, width) each.

    Attributes:
        padded_size: Size of the network's input.
        frame_size: Size of the frame inside it (top left); the rest is padding.
        output_size: Original size of the video.
    """

    padded_size: tuple[int, int]
    frame_size: tuple[int, int]
    output_size: tuple[int, int]


def select_tracks(class_logits: Tensor, num_tracks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Select the (query, class) pairs with the highest scores; a query may be in several pairs.

    Args:
        class_logits: (Q, C + 1), the last column "no object".
        num_tracks: Pairs to keep, at most Q * C.

    Returns:
        Scores in [0, 1], in descending order, (K,) float32; classes (K,) int64; indices of the
        queries (K,) int64. Equal scores are in the order of queries and classes.

    Example:
        >>> scores, classes, queries = select_tracks(torch.tensor([[0.0, 9, 0], [9, 0, 0]]), 2)
        >>> classes.tolist(), sorted(queries.tolist())
        ([1, 0], [0, 1])
    """
    return select_pairs(class_probabilities(class_logits), num_tracks)


def class_probabilities(class_logits: Tensor) -> Tensor:
    """Probabilities of the classes, without "no object".

    Args:
        class_logits: (Q, C + 1), the last column "no object".

    Returns:
        (Q, C) float32.

    Example:
        >>> class_probabilities(torch.zeros(1, 4)).tolist()
        [[0.25, 0.25, 0.25]]
    """
    return class_logits.float().softmax(-1)[:, :-1]


def select_pairs(probs: Tensor, num_tracks: int) -> tuple[Tensor, Tensor, Tensor]:
    """``select_tracks`` for class probabilities.

    The order of equal scores is fixed, so that rows that are not selected can be left out before.

    Args:
        probs: (Q, C) in [0, 1].
        num_tracks: Pairs to keep, at most Q * C.

    Returns:
        Scores, classes and indices of the rows, (K,) each.

    Example:
        >>> scores, classes, rows = select_pairs(torch.tensor([[0.5, 0.25], [0.125, 0.5]]), 3)
        >>> scores.tolist(), classes.tolist(), rows.tolist()
        ([0.5, 0.5, 0.25], [0, 1, 1], [0, 1, 0])
    """
    scores, index = probs.flatten().sort(descending=True, stable=True)
    scores, index = scores[:num_tracks], index[:num_tracks]
    return scores, index % probs.shape[1], index // probs.shape[1]


def resize_masks(
    mask_logits: Tensor,
    padded_size: tuple[int, int],
    frame_size: tuple[int, int],
    output_size: tuple[int, int],
) -> Tensor:
    """Resize mask logits to the size of the video and threshold them.

    Frames are resized one at a time, so that only one frame has float logits at full size.

    Args:
        mask_logits: Mask logits of the padded frames, (K, T, h, w).
        padded_size: Height and width of the network's input.
        frame_size: Height and width of the frame inside it (top left); the rest is padding.
        output_size: Height and width of the result.

    Returns:
        (K, T, *output_size) bool, on the CPU: logit > 0.

    Example:
        >>> logits = torch.tensor([[1.0, -1.0]]).view(1, 1, 1, 2)  # left half of a frame of 4 x 8
        >>> resize_masks(logits, (4, 8), (4, 8), (2, 4))[0, 0].int().tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0]]
    """
    num_masks, num_frames = mask_logits.shape[:2]
    masks = torch.zeros((num_masks, num_frames, *output_size), dtype=torch.bool)
    is_visible = mask_logits.gt(0).flatten(2).any(2).cpu()  # otherwise nothing is above 0 between
    for t in range(num_frames):
        seen = is_visible[:, t].nonzero()[:, 0]
        if len(seen):
            of_frame = mask_logits[None, seen.to(mask_logits.device), t]
            logits = _to_output(of_frame, padded_size, frame_size, output_size)
            masks[seen, t] = logits[0].gt(0).cpu()
    return masks


def frame_probabilities(
    mask_logits: Tensor,
    padded_size: tuple[int, int],
    frame_size: tuple[int, int],
    output_size: tuple[int, int],
) -> Tensor:
    """Probabilities of a spatial mask at the size of the video, resized one frame at a time.

    Args:
        mask_logits: Mask logits of the padded frames, (T, h, w) or (T, V, h, w).
        padded_size: Height and width of the network's input.
        frame_size: Height and width of the frame inside it (top left); the rest is padding.
        output_size: Height and width of the result.

    Returns:
        (..., *output_size) uint8 on the CPU, 255 for probability 1.

    Example:
        >>> frame_probabilities(torch.zeros(2, 1, 1), (4, 4), (4, 4), (2, 3)).tolist()[0]
        [[128, 128, 128], [128, 128, 128]]
    """
    maps = mask_logits.flatten(0, -3)
    probs = torch.empty((len(maps), *output_size), dtype=torch.uint8)
    for of_frame, logits in zip(probs, maps, strict=True):
        resized = _to_output(logits[None, None], padded_size, frame_size, output_size)
        of_frame.copy_((resized[0, 0].sigmoid() * 255).round())
    return probs.view(*mask_logits.shape[:-2], *output_size)


@once_more
def _to_output(
    logits: Tensor,
    padded_size: tuple[int, int],
    frame_size: tuple[int, int],
    output_size: tuple[int, int],
) -> Tensor:
    """Logits (1, K, h, w) at the size of the video, float32."""
    logits = logits.float()
    logits = F.interpolate(logits, size=padded_size, mode="bilinear", align_corners=False)
    logits = logits[..., : frame_size[0], : frame_size[1]]
    if frame_size == output_size:
        return logits
    return F.interpolate(logits, size=output_size, mode="bilinear", align_corners=False)


def clip_result(
    outputs: dict[str, Tensor],
    *,
    num_tracks: int,
    padded_size: tuple[int, int],
    frame_size: tuple[int, int],
    output_size: tuple[int, int],
    rate: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
) -> dict[str, object]:
    """The tracks of one video, as the model returns them in eval mode.

    Args:
        outputs: ``pred_logits`` (Q, C + 1) and ``pred_masks`` (Q, T, h, w).
        num_tracks: Tracks to keep.
        padded_size: Height and width of the network's input.
        frame_size: Height and width of the frames in it.
        output_size: Height and width of the video.
        rate: Function of the indices of the kept queries (N,). It returns the mask logits
            (N, T, h, w) to use instead of ``pred_masks``, and the factors (N,) on the scores. None:
            ``pred_masks`` and unchanged scores.

    Returns:
        ``image_size`` (height, width); ``pred_scores``, a list of K floats in descending order;
        ``pred_labels``, a list of K contiguous classes; ``pred_masks``, a list of K bool tensors
        (T, height, width) on the CPU. Tracks of the same query share the memory of their masks.

    Example:
        >>> outputs = {"pred_logits": torch.eye(2)[:1], "pred_masks": torch.ones(1, 2, 1, 1)}
        >>> sizes = FrameSizes((4, 4), (4, 4), (3, 5))
        >>> result = clip_result(outputs, num_tracks=10, **sizes._asdict())
        >>> result["pred_labels"], tuple(result["pred_masks"][0].shape)
        ([0], (2, 3, 5))
    """
    scores, labels, queries = select_tracks(outputs["pred_logits"], num_tracks)
    kept, place = queries.unique(return_inverse=True)
    if rate is None:
        logits = outputs["pred_masks"][kept]
    else:
        logits, factor = rate(kept)
        scores, labels, place = apply_factors(scores, labels, place, factor)
    masks = resize_masks(logits, padded_size, frame_size, output_size)
    return {
        "image_size": output_size,
        "pred_scores": scores.tolist(),
        "pred_labels": labels.tolist(),
        "pred_masks": [masks[i] for i in place.tolist()],
    }


def apply_factors(
    scores: Tensor, labels: Tensor, rows: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Multiply the scores of pairs by the factors of their rows, and sort them again (stable).

    Args:
        scores: Class probabilities, (K,).
        labels: Classes, (K,).
        rows: Row of each pair in ``factor``, (K,), int64.
        factor: (N,), in [0, 1].

    Returns:
        Scores in descending order, labels and rows, (K,) each.

    Example:
        >>> pairs = torch.tensor([1.0, 0.5]), torch.tensor([7, 8]), torch.tensor([0, 1])
        >>> scores, labels, rows = apply_factors(*pairs, torch.tensor([0.25, 1.0]))
        >>> scores.tolist(), labels.tolist(), rows.tolist()
        ([0.5, 0.25], [8, 7], [1, 0])
    """
    scores, order = (scores * factor[rows]).sort(descending=True, stable=True)
    return scores, labels[order], rows[order]
