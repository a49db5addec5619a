#!/usr/bin/env python3
r"""Segment the objects of your own videos: masks, class, id and score drawn into an mp4 each.

Example (after ``make quickstart``; the input may be any video file or folder of frames):

    python tools/demo.py --config-file configs/quickstart/maskfreevis_tiny.yaml \
        --input datasets/quickstart/val/JPEGImages/video_0000 --output output/demo.mp4 \
        --opts MODEL.WEIGHTS output/quickstart/model_final.pth

With several inputs, --output is a folder. The whole video goes through the model at once.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from maskfreevis_ext.config import load_config
from maskfreevis_ext.engine.predict import (
    build_predictor,
    category_ids,
    find_class_names,
    start_log,
)
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.files import write_json
from maskfreevis_ext.inference.drawing import draw_items
from maskfreevis_ext.inference.predictor import VideoPredictor
from maskfreevis_ext.inference.video_io import FrameSource, FrameWriter, open_frames, write_image
from maskfreevis_ext.tracks import Prediction, with_category_ids

_DEFAULT_FPS = 10.0  # for a folder of frames


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file",
        required=True,
        metavar="YAML",
        help="config that the model was trained with",
    )
    parser.add_argument(
        "--input", required=True, nargs="+", metavar="PATH", help="video files or folders of frames"
    )
    parser.add_argument(
        "--output", required=True, metavar="PATH", help="an .mp4 file (one input), or a folder"
    )
    parser.add_argument(
        "--confidence-threshold",
        type=float,
        default=0.3,
        help="least score drawn (default %(default)s)",
    )
    parser.add_argument(
        "--fps", type=float, help=f"frames per second (default: the video's, else {_DEFAULT_FPS:g})"
    )
    parser.add_argument(
        "--save-frames", action="store_true", help="also write every drawn frame as PNG"
    )
    parser.add_argument(
        "--save-json", action="store_true", help="also write the tracks, in results.json form"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="class names, where the config's data set has none",
    )
    parser.add_argument("--device", help='MODEL.DEVICE, for example "cpu" or "cuda"')
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides; last",
    )
    return parser.parse_args(argv)


def plan_outputs(sources: Sequence[FrameSource], output: str) -> list[Path]:
    """The mp4 file of each input.

    Args:
        sources: The inputs.
        output: What the user gave: an .mp4 file, or a folder.

    Raises:
        ConfigError: There are several inputs for one file.
    """
    path = Path(output)
    if path.suffix.lower() == ".mp4" and not path.is_dir():
        if len(sources) > 1:
            raise ConfigError(
                f"--output: expected a folder for {len(sources)} inputs, got the file {output}."
            )
        return [path]
    seen: Counter[str] = Counter()
    targets = []
    for source in sources:
        seen[source.name] += 1
        again = f"_{seen[source.name]}" if seen[source.name] > 1 else ""
        targets.append(path / f"{source.name}{again}.mp4")
    return targets


def write_video(
    source: FrameSource,
    prediction: Prediction,
    target: Path,
    names: list[str] | None,
    args: argparse.Namespace,
) -> Path:
    """Draw a prediction on the frames of its video; returns the file (or folder) written."""
    fps = args.fps or source.fps or _DEFAULT_FPS
    num_frames = len(prediction.masks[0]) if prediction.masks else source.num_frames
    drawn = prediction.select(args.confidence_threshold)
    with FrameWriter(target, fps) as writer:
        progress = tqdm(source, f"{source.name}: drawing", num_frames, unit="frame")
        for index, frame in enumerate(progress):
            picture = draw_items(frame, drawn.items(index, names))
            writer.write(picture)
            if args.save_frames:
                write_image(target.with_suffix("") / f"{index:05d}.png", picture)
    return writer.path


def segment(
    source: FrameSource,
    target: Path,
    predictor: VideoPredictor,
    names: list[str] | None,
    args: argparse.Namespace,
) -> Prediction:
    """Predict and draw one video; returns the prediction."""
    frames = tqdm(source, f"{source.name}: reading", source.num_frames, unit="frame")
    prediction = Prediction.from_output(predictor(frames))
    count = len(prediction.select(args.confidence_threshold))
    written = write_video(source, prediction, target, names, args)
    print(
        f"{source.name}: {count} tracks with a score of at least {args.confidence_threshold:g},"
        f" drawn in {written}"
    )
    return prediction


def run(args: argparse.Namespace) -> None:
    """Segment every input.

    Raises:
        ConfigError: An option or a config key cannot be used.
        DataError: An input cannot be read, or an output not written.
    """
    logger = start_log()
    # Open the inputs first, so that a wrong path is reported before the model is built.
    sources = [open_frames(path) for path in args.input]
    targets = plan_outputs(sources, args.output)
    if args.fps is not None and not args.fps > 0:
        raise ConfigError(f"--fps: expected a number > 0, got {args.fps:g}.")
    cfg = load_config(args.config_file, args.opts, args.device)
    names = find_class_names(cfg, args.classes)
    predictor = build_predictor(cfg)
    logger.info("Predicting on %s", cfg.MODEL.DEVICE)
    for index, (source, target) in enumerate(zip(sources, targets, strict=True), start=1):
        prediction = segment(source, target, predictor, names, args)
        if args.save_json:
            results = with_category_ids(prediction.results(index), category_ids(cfg))
            write_json(results, target.with_suffix(".json"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool; exits with code 2 and one line when something cannot be used."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    main()
