#!/usr/bin/env python3
r"""Segment the objects of your own videos: masks, class, id and score drawn into an mp4 each.

Examples (after ``make quickstart``; the input may be any video file or folder of frames):

    python tools/demo.py --config-file configs/quickstart/maskfreevis_tiny.yaml \
        --input datasets/quickstart/val/JPEGImages/video_0000 --output output/demo.mp4 \
        --opts MODEL.WEIGHTS output/quickstart/model_final.pth

    python tools/demo.py --config-file configs/quickstart/maskfreevis_tiny.yaml \
        --input datasets/quickstart/val/JPEGImages/video_0000 --output output/demo \
        --save mp4 davis ytvis coco mots --confidence 0.5 --overwrite \
        --opts MODEL.WEIGHTS output/quickstart/model_final.pth TEST.WINDOW.MODE online

--input takes video files, folders of frames, pictures, patterns and numbers of cameras; with
several videos, --output is a folder. A drawn video plays as long as its source. Ctrl-C completes
the files with the frames so far. See docs/demo.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
from detectron2.config import CfgNode

from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.frame_rules import FrameRules
from maskfreevis_ext.engine.arguments import (
    add_confidence,
    add_device,
    add_opts,
    add_overwrite,
)
from maskfreevis_ext.engine.inputs import config_inputs
from maskfreevis_ext.engine.interrupt import StopOnInterrupt
from maskfreevis_ext.engine.predict import (
    build_predictor,
    category_ids,
    choose_classes,
    start_log,
)
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.files import check_outputs
from maskfreevis_ext.inference.export.onnx_model import OnnxPredictor, load_exported_config
from maskfreevis_ext.inference.predictor import VideoPredictor
from maskfreevis_ext.inference.segment_video import SegmentSettings, check_frame_size, segment_video
from maskfreevis_ext.inference.video_io import DEFAULT_FPS, FrameSource, open_inputs
from maskfreevis_ext.inference.video_outputs import KINDS, OutputPlan, VideoOutputs, plan_outputs
from maskfreevis_ext.out_of_memory import explain_out_of_memory, prediction_hints


def _number(kind: Callable[[str], float], least: float, name: str) -> Callable[[str], float]:
    """Parser of an option that holds a number."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"expected {name}, got {text!r}")
        return value

    return parse


_COUNT = _number(int, 1, "a whole number >= 1")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--config-file", metavar="YAML", help="config that the model was trained with"
    )
    model.add_argument(
        "--onnx", metavar="FOLDER", help="run the ONNX files that tools/export_model.py wrote"
    )
    add(
        *("--input", "--inputs"),
        dest="input",
        required=True,
        nargs="+",
        metavar="INPUT",
        help="video files, folders of frames, pictures, patterns, numbers of cameras",
    )
    add("--output", required=True, metavar="PATH", help="an .mp4 file (one video), or a folder")
    add(
        "--save",
        nargs="+",
        choices=KINDS,
        default=["mp4"],
        help="what to write: the drawn mp4 and frames (PNG), DAVIS masks, YouTube-VIS results, COCO"
        " annotations, MOTS text (default mp4)",
    )
    add("--save-frames", action="store_true", help="the same as one more --save frames")
    add("--save-json", action="store_true", help="the same as one more --save ytvis")
    add_overwrite(parser)
    add_confidence(parser)
    add(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="classes to keep, names or numbers from 0; where neither the weights nor the config's"
        " data set have names, the names of all classes",
    )
    add("--stride", type=_COUNT, default=1, metavar="N", help="take every N-th frame")
    add("--max-frames", type=_COUNT, metavar="N", help="take at most N frames of each video")
    add(
        "--fps",
        type=float,
        help="constant frames per second (default: the times of the video's frames; of pictures"
        f" {DEFAULT_FPS:g})",
    )
    add_device(parser)
    add_opts(parser)
    return parser.parse_args(argv)


def plan(args: argparse.Namespace, cfg: CfgNode) -> tuple[list[FrameSource], list[OutputPlan]]:
    """Open the inputs and check the outputs, before the model is built.

    Raises:
        ConfigError: An option cannot be used.
        DataError: An input cannot be read, or an output not written.
    """
    if args.fps is not None and not 0 < args.fps < math.inf:
        raise ConfigError(f"--fps: expected a number > 0, got {args.fps:g}.")
    kinds = {*args.save}
    kinds |= {"frames"} if args.save_frames else set()
    kinds |= {"ytvis"} if args.save_json else set()
    sources = open_inputs(args.input, FrameRules.from_config(cfg))
    plans = plan_outputs([source.name for source in sources], args.output, kinds)
    inputs = config_inputs(cfg, args.config_file)
    inputs += [args.onnx, *map(str, Path(args.onnx).iterdir())] if args.onnx else []
    check_outputs(
        [path for each in plans for path in each.files],
        [*inputs, *(path for source in sources for path in source.inputs)],
        folders=[path for each in plans for path in each.folders],
        overwrite=args.overwrite,
    )
    for source, each in zip(sources, plans, strict=True):
        each.check_encoding(source, args.fps)
    return sources, plans


def read_config(args: argparse.Namespace) -> CfgNode:
    """The config of the command line.

    Raises:
        ConfigError: A file, a key or a value cannot be used.
        CheckpointError: The folder of --onnx is not an export.
    """
    if args.onnx:
        return load_exported_config(args.onnx, args.opts, args.device)
    return load_config(args.config_file, args.opts, args.device)


def make_predictor(args: argparse.Namespace, cfg: CfgNode) -> VideoPredictor:
    """The predictor of the command line.

    Raises:
        ConfigError: There are no weights.
        CheckpointError: The weights or the ONNX files cannot be used.
    """
    return OnnxPredictor(args.onnx, cfg) if args.onnx else build_predictor(cfg)


def run(args: argparse.Namespace) -> int:
    """Segment every input.

    Returns:
        The exit code.

    Raises:
        ConfigError: An option or a config key cannot be used.
        DataError: An input cannot be read, or an output not written.
    """
    logger = start_log()
    cfg = read_config(args)
    sources, plans = plan(args, cfg)
    for source in sources:
        check_frame_size(source, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    predictor = make_predictor(args, cfg)
    stored = predictor.class_names
    names, labels = choose_classes(cfg, args.classes, stored)
    settings = SegmentSettings(
        min_score=args.confidence,
        labels=labels,
        fps=args.fps,
        stride=args.stride,
        max_frames=args.max_frames,
        is_online=cfg.TEST.WINDOW.MODE == "online",
    )
    ids = category_ids(cfg, stored)
    logger.info("Predicting on %s", cfg.MODEL.DEVICE)
    with StopOnInterrupt(
        "Completing the files (Ctrl-C again: without the frames in work)."
    ) as stop:
        for number, (source, each) in enumerate(zip(sources, plans, strict=True), start=1):
            outputs = VideoOutputs(
                each, source, fps=args.fps, class_names=names, category_ids=ids, video_id=number
            )
            try:
                with outputs, explain_out_of_memory(prediction_hints(cfg)):
                    segment_video(source, predictor, outputs, settings, lambda: stop.is_requested)
            finally:
                if outputs.num_frames:
                    print(
                        f"{source.name}: {outputs.num_frames} frames, {len(outputs.track_ids)}"
                        f" tracks with a score of at least {args.confidence:g}, drawn in"
                        f" {', '.join(map(str, each.paths.values()))}"
                    )
            if stop.is_requested:
                return stop.exit_code
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; what cannot be used ends with exit code 2 and one line.

    Ctrl-C ends it with 130, SIGTERM with 143.
    """
    return exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
