#!/usr/bin/env python
r"""Masks for the boxes of an annotation file.

    python tools/boxes_to_masks.py --json datasets/quickstart/train.json \
        --images datasets/quickstart/train/JPEGImages --output output/masks.json

Takes a YouTube-VIS JSON with boxes and writes the same file with a mask in every frame in which an
object has a box (compressed RLE in ``segmentations``; null elsewhere), and per object a
``confidence`` in [0, 1]. Ids, boxes and all other fields stay as they are; ``areas`` become those
of the masks. The masks come from a small network per object that is fitted to its own video, or,
with ``--method grabcut``, from GrabCut in each frame: much faster, and good where objects have
other colours than what surrounds them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
import numpy as np
from tqdm import tqdm

from maskfreevis_ext.data.images import read_frame
from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.files import write_json
from maskfreevis_ext.modeling import EfficientNetLite0
from maskfreevis_ext.pseudo import ClipMasks, PixelHeadSettings, segment_clip
from maskfreevis_ext.pseudo.grabcut import GrabCutMasks
from maskfreevis_ext.pseudo.objects import video_objects
from maskfreevis_ext.rle import encode_masks


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", required=True, metavar="FILE", help="annotations with boxes")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the frames")
    parser.add_argument("--output", required=True, metavar="FILE", help="annotations with masks")
    parser.add_argument("--method", choices=("pixel_head", "grabcut"), default="pixel_head")
    parser.add_argument("--steps", type=int, default=PixelHeadSettings.steps, help="steps of a fit")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def fill_in(
    annotation: dict[str, Any], masks: ClipMasks | GrabCutMasks, index: int, boxes: np.ndarray
) -> None:
    """Put the masks of an object, their areas and its confidence into its annotation.

    Args:
        annotation: Changed in place.
        masks: Masks of all objects of the video.
        index: The object.
        boxes: (T, 4), x0, y0, x1, y1, empty where it is absent.
    """
    segmentations: list[dict[str, Any] | None] = []
    areas: list[int | None] = []
    for t, box in enumerate(boxes):
        mask = masks.mask(index, t) if (box[2:] > box[:2]).all() else None
        segmentations.append(None if mask is None else encode_masks(mask[None])[0])
        areas.append(None if mask is None else int(mask.sum()))
    annotation["segmentations"] = segmentations
    annotation["areas"] = areas
    annotation["confidence"] = round(masks.confidence(index), 4)


def pixel_head(steps: int, seed: int) -> Callable[[Sequence[np.ndarray], np.ndarray], ClipMasks]:
    """A function from frames and boxes (N, T, 4) to masks.

    Raises:
        ConfigError: The ImageNet weights are not installed.
    """
    backbone = EfficientNetLite0()
    backbone.load_imagenet_weights()
    backbone.eval()
    settings = PixelHeadSettings(steps=steps, seed=seed)
    return partial(segment_clip, backbone=backbone, settings=settings)


def run(args: argparse.Namespace) -> None:
    """Fit and write; prints the objects with the least confidence.

    Raises:
        DataError: The annotations cannot be used, or the output cannot be written.
        ConfigError: The ImageNet weights are not installed.
    """
    folder = os.path.dirname(os.path.abspath(args.output))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise DataError(f"{args.output}: cannot be written: {folder} is no writable folder.")
    if os.path.exists(args.output) and os.path.samefile(args.output, args.json):
        raise DataError(f"{args.output}: is the input; expected another file for the output.")
    videos = load_ytvis_json(args.json, args.images)
    content = read_json(args.json)
    annotations = {entry["id"]: entry for entry in content.get("annotations") or []}
    find_masks = GrabCutMasks if args.method == "grabcut" else pixel_head(args.steps, args.seed)
    confidences: dict[int, float] = {}
    for video in tqdm(videos, desc="videos", unit="video"):
        objects = video_objects(video, read_frame)
        if not objects.tracks:
            continue
        masks = find_masks(objects.frames, objects.boxes)
        for index, track in enumerate(objects.tracks):
            fill_in(annotations[track], masks, index, objects.boxes[index])
            confidences[track] = annotations[track]["confidence"]
    try:
        write_json(content, args.output)
    except OSError as error:
        raise DataError(f"{args.output}: cannot be written: {error.strerror or error}.") from error
    doubtful = sorted(confidences, key=confidences.__getitem__)[:5]
    print(f"{args.output}: masks of {len(confidences)} objects. Look first at the least certain:")
    for track in doubtful:
        print(f"  object {track}: confidence {confidences[track]:.2f}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    args = parse_args(argv)
    exit_on_user_error(run, args)


if __name__ == "__main__":
    main(sys.argv[1:])
