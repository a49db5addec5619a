"""``real``: measure what can be learned from boxes.

Fits the pixel head to every video of a YouTube-VIS JSON from its boxes alone, and
compares its masks with those of the JSON, which are used for nothing else. Beside it stand filling
the box and OpenCV's GrabCut from the box (5 iterations a frame). The figure of an object is its
video IoU: pixels of the intersection divided by those of the union, both summed over all frames.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from maskfreevis_ext.data.images import read_frame
from maskfreevis_ext.data.track_masks import object_masks
from maskfreevis_ext.data.ytvis import DatasetDict, load_ytvis_json
from maskfreevis_ext.engine.arguments import add_overwrite
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.evaluation.overlap import video_iou
from maskfreevis_ext.evaluation.per_object import ObjectScores, objects_markdown, write_objects
from maskfreevis_ext.files import check_outputs, mark_outputs
from maskfreevis_ext.inference.drawing import SheetRow, contact_sheet, draw_items
from maskfreevis_ext.inference.video_io import write_image
from maskfreevis_ext.modeling import EfficientNetLite0
from maskfreevis_ext.pseudo import ClipMasks, PixelHeadSettings, segment_clip
from maskfreevis_ext.pseudo.grabcut import grabcut_from_box
from maskfreevis_ext.pseudo.objects import VideoObjects, video_objects
from maskfreevis_ext.pseudo.windows import box_mask
from maskfreevis_ext.rle import encode_masks
from maskfreevis_ext.tracks import Item, decode_track

METHODS = ("pixel head", "GrabCut", "box")
_GRABCUT_ITERATIONS = 5
_NUM_SHOWN = 5  # best and worst objects that are drawn
_FRAMES_SHOWN = 4


NAME = "real"
HELP = "masks from boxes alone on clips that have masks, beside GrabCut and filling the box"
EXAMPLE = r"""    python tools/experiment.py real --json datasets/quickstart/val.json \
        --images datasets/quickstart/val/JPEGImages --output output/real"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", required=True, metavar="FILE", help="annotations with masks")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the frames")
    parser.add_argument(
        "--boxes-json", metavar="FILE", help="boxes to fit to; default: those of --json"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="write table.csv, table.md and overlays here"
    )
    parser.add_argument("--steps", type=int, default=PixelHeadSettings.steps, help="steps of a fit")
    parser.add_argument("--seed", type=int, default=0)
    add_overwrite(parser)


def plain_grabcut(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """GrabCut from the box alone, (H, W) bool."""
    return grabcut_from_box(frame, box, _GRABCUT_ITERATIONS)


def filled_box(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The filled box, (H, W) bool."""
    return box_mask(box, frame.shape[:2])


def score_video(
    name: str, masks: ClipMasks, objects: VideoObjects, truth: np.ndarray, seconds: float
) -> list[ObjectScores]:
    """Compare the objects of a video with their true masks, (N, T, H, W) bool."""
    rows = []
    height, width = truth.shape[-2:]
    for index, track in enumerate(objects.tracks):

        def in_box(
            method: Callable[[np.ndarray, np.ndarray], np.ndarray], index: int = index
        ) -> Callable[[int], np.ndarray]:
            def predict(t: int) -> np.ndarray:
                box, frame = objects.boxes[index, t], objects.frames[t]
                if (box[2:] <= box[:2]).any():
                    return np.zeros(frame.shape[:2], dtype=bool)
                return method(frame, box)

            return predict

        predictions: dict[str, Callable[[int], np.ndarray]] = {
            "pixel head": partial(masks.mask, index),
            "GrabCut": in_box(plain_grabcut),
            "box": in_box(filled_box),
        }
        expected = decode_track(encode_masks(truth[index]), height, width, name)
        values = {}
        for method in METHODS:
            found = [
                encode_masks(predictions[method](frame)[None])[0]
                for frame in range(len(truth[index]))
            ]
            values[method] = video_iou(decode_track(found, height, width, name), expected)
        values["seconds"] = seconds / len(objects.tracks)
        rows.append(ObjectScores(name, track, len(objects.tracks), values))
    return rows


def write_tables(rows: Sequence[ObjectScores], folder: Path) -> None:
    """Write ``table.csv`` and ``table.md``.

    Raises:
        DataError: The folder cannot be written to.
    """
    for name in ("table.csv", "table.md"):
        write_objects(rows, str(folder / name))


def sheet_row(row: ObjectScores, masks: ClipMasks, objects: VideoObjects) -> SheetRow:
    """Frames of an object with its mask and box."""
    index = objects.tracks.index(row.object_id)
    has_box = np.flatnonzero(masks.windows.is_present[index])
    shown = has_box[np.linspace(0, len(has_box) - 1, _FRAMES_SHOWN).round().astype(int)]
    cells = [
        draw_items(
            objects.frames[t],
            [Item(1, mask=masks.mask(index, t), box=tuple(objects.boxes[index, t]))],
        )
        for t in shown
    ]
    return SheetRow(f"{row.video}, object {row.object_id}: IoU {row.values[METHODS[0]]:.2f}", cells)


def run(args: argparse.Namespace) -> int:
    """Fit, score, print and write.

    Raises:
        DataError: The files cannot be used, or do not belong together.
        ConfigError: The ImageNet weights are not installed.
    """
    names = ("table.csv", "table.md", "worst.jpg", "best.jpg")
    outputs = [Path(args.output) / name for name in names] if args.output else []
    inputs = [path for path in (args.json, args.boxes_json, args.images) if path]
    check_outputs(outputs, inputs, overwrite=args.overwrite)
    videos = load_ytvis_json(args.json, args.images)
    boxes = load_ytvis_json(args.boxes_json, args.images) if args.boxes_json else videos
    given = {video["video_id"]: video for video in boxes}
    backbone = EfficientNetLite0()
    backbone.load_imagenet_weights()
    backbone.eval()
    settings = PixelHeadSettings(steps=args.steps, seed=args.seed)
    rows: list[ObjectScores] = []
    drawn: list[tuple[float, SheetRow]] = []
    start = time.monotonic()
    for video in tqdm(videos, desc="videos", unit="video"):
        objects, truth = _pair(video, given, args)
        if not objects.tracks:
            continue
        before = time.monotonic()
        masks = segment_clip(objects.frames, objects.boxes, backbone, settings)
        seconds = time.monotonic() - before
        name = Path(video["file_names"][0]).parent.name
        found = score_video(name, masks, objects, truth, seconds)
        rows += found
        if args.output:
            drawn += [(row.values[METHODS[0]], sheet_row(row, masks, objects)) for row in found]
    if not rows:
        raise DataError(f"{args.json}: expected objects with masks, got none.")
    print(objects_markdown(rows) + f"\n{time.monotonic() - start:.0f} s in all")
    if args.output:
        folder = Path(args.output)
        write_tables(rows, folder)
        drawn.sort(key=lambda item: item[0])
        for name, part in (("worst", drawn[:_NUM_SHOWN]), ("best", drawn[::-1][:_NUM_SHOWN])):
            write_image(folder / f"{name}.jpg", contact_sheet([row for _, row in part]))
        mark_outputs(outputs)
    return 0


def _pair(
    video: DatasetDict, given: dict[int, DatasetDict], args: argparse.Namespace
) -> tuple[VideoObjects, np.ndarray]:
    """The boxes to fit to and the true masks of the same objects."""
    boxes = given.get(video["video_id"])
    if boxes is None or boxes["length"] != video["length"]:
        raise DataError(
            f"{args.boxes_json}: expected video {video['video_id']} with {video['length']} frames,"
            " as in --json."
        )
    objects = video_objects(boxes, read_frame)
    tracks = sorted({o["id"] for frame in video["annotations"] for o in frame if not o["iscrowd"]})
    if tracks != objects.tracks:
        raise DataError(
            f"video {video['video_id']}: expected the objects {tracks} of --json in --boxes-json, "
            f"got {objects.tracks}."
        )
    return objects, object_masks(video).numpy()
