#!/usr/bin/env python
r"""Measure how well a spatial mask head finds the objects: IoU over a data set, and heat maps.

Example (after training with the same config):

    python tools/analyze_spatial_mask.py --output pictures \
        --config-file configs/spatial_mask/quickstart_spatial_mask.yaml \
        --opts MODEL.WEIGHTS output/quickstart_spatial_mask/model_final.pth

Runs the model on the first data set of DATASETS.TEST, which must have masks, and prints the IoU of
the mask, cut at 0.5, with the union of the objects: of all pixels together, and the mean over the
frames with an object. The IoU at the threshold that is best for the whole data set is printed too:
it tells a mask that is badly scaled from one that is in the wrong place. --output gets a contact
sheet of heat maps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from torch import Tensor
from tqdm import tqdm

from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.images import read_video_frame
from maskfreevis_ext.data.loaders import build_test_loader
from maskfreevis_ext.data.track_masks import object_masks
from maskfreevis_ext.engine.arguments import add_device, add_opts, add_overwrite
from maskfreevis_ext.engine.inputs import config_inputs
from maskfreevis_ext.engine.predict import build_predictor, start_log
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.files import check_outputs, mark_outputs, write_report
from maskfreevis_ext.inference.drawing import SheetRow, contact_sheet, spread_indices
from maskfreevis_ext.inference.video_io import write_image

LEVELS = 256  # number of values of a probability in the results


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="YAML")
    add_device(parser)
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    add_overwrite(parser)
    parser.add_argument("--output", metavar="FOLDER", help="write heat_maps.png here")
    parser.add_argument("--videos", type=int, default=3, help="videos drawn; default 3")
    parser.add_argument("--columns", type=int, default=6, help="frames of each; default 6")
    add_opts(parser)
    return parser.parse_args(argv)


def count_levels(probs: Tensor, is_object: Tensor) -> Tensor:
    """Number of background and of object pixels with each probability level.

    Args:
        probs: (T, H, W), uint8.
        is_object: Same shape, bool.

    Returns:
        (2, 256), int64.
    """
    place = probs.long() + LEVELS * is_object.long()
    return torch.bincount(place.flatten(), minlength=2 * LEVELS).view(2, LEVELS)


def ious_of_counts(counts: Tensor) -> Tensor:
    """IoU at every threshold, (256,): entry i counts pixels of probability level i and more."""
    found = counts.flip(1).cumsum(1).flip(1).double()
    union = found[0] + counts[1].sum()
    return found[1] / union.clamp(min=1)


def heat_map(frame: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """A frame blended with its probabilities, RGB uint8: red is 1, blue is 0."""
    colors = cv2.cvtColor(cv2.applyColorMap(probs, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    return cv2.addWeighted(frame, 0.45, colors, 0.55, 0)


def draw_video(video: dict[str, Any], probs: Tensor, columns: int) -> list[SheetRow]:
    """Two rows of the sheet: the frames, and the frames with their heat maps."""
    shown = spread_indices(video["length"], columns)
    frames = [read_video_frame(video, index, "RGB") for index in shown]
    maps = [
        heat_map(frame, probs[index].numpy()) for frame, index in zip(frames, shown, strict=True)
    ]
    title = f"video {video['video_id']}"
    captions = [f"frame {index}" for index in shown]
    return [SheetRow(title, frames), SheetRow(f"{title}: spatial mask", maps, captions)]


def analyze(
    model: torch.nn.Module, loader: Iterable, name: str, num_drawn: int, columns: int
) -> tuple[dict[str, float], list[SheetRow]]:
    """The measured figures, and rows for the contact sheet.

    Raises:
        DataError: The data set has no objects with masks.
    """
    videos = {video["video_id"]: video for video in DatasetCatalog.get(name)}
    total = torch.zeros(2, LEVELS, dtype=torch.int64)
    of_frames: list[float] = []
    rows: list[SheetRow] = []
    for batch in tqdm(loader, desc=name, unit="video", disable=not sys.stderr.isatty()):
        for sample in batch:
            video = videos[sample["video_id"]]
            probs = model([sample])[0]["dynamic_mask"]
            is_object = object_masks(video).any(0)
            total += count_levels(probs, is_object)
            for of_frame, target in zip(probs, is_object, strict=True):
                if target.any():
                    counts = count_levels(of_frame, target)
                    of_frames.append(float(ious_of_counts(counts)[LEVELS // 2]))
            if len(rows) < 2 * num_drawn:
                rows += draw_video(video, probs, columns)
    if not of_frames:
        raise DataError(f"{name} has no object to compare with; name another data set.")
    ious = ious_of_counts(total)
    best = int(ious.argmax())
    report = {
        "iou": float(ious[LEVELS // 2]),
        "mean_frame_iou": float(np.mean(of_frames)),
        "best_iou": float(ious[best]),
        "best_threshold": best / (LEVELS - 1),
        "frames": len(of_frames),
    }
    return report, rows


def run(args: argparse.Namespace) -> None:
    """Analyze, print, write.

    Raises:
        ConfigError: The model has no spatial mask head, or the config no data set.
        DataError: The data set or the output file cannot be used.
    """
    logger = start_log()
    outputs = [args.json] if args.json else []
    outputs += [Path(args.output) / "heat_maps.png"] if args.output else []
    cfg = load_config(args.config_file, args.opts, args.device)
    check_outputs(outputs, config_inputs(cfg, args.config_file), overwrite=args.overwrite)
    if not cfg.MODEL.SPATIAL_MASK.ENABLED:
        raise ConfigError("MODEL.SPATIAL_MASK.ENABLED: expected True, got False.")
    if not cfg.DATASETS.TEST:
        raise ConfigError("DATASETS.TEST: expected a data set with masks, got none.")
    model = build_predictor(cfg).model
    name = cfg.DATASETS.TEST[0]
    num_drawn = args.videos if args.output else 0
    report, rows = analyze(model, build_test_loader(cfg, name), name, num_drawn, args.columns)
    print(
        f"IoU {report['iou']:.3f}, mean over {report['frames']} frames "
        f"{report['mean_frame_iou']:.3f}; at the best threshold {report['best_threshold']:.2f} "
        f"{report['best_iou']:.3f}"
    )
    if rows:
        path = Path(args.output) / "heat_maps.png"
        write_image(path, contact_sheet(rows))
        mark_outputs([path])
        logger.info("Wrote %s", path)
    if args.json:
        write_report(report, args.json)
        mark_outputs([args.json])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool; exits with code 2 and one line for an error that the user can mend."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    main()
