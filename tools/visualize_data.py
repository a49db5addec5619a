#!/usr/bin/env python3
r"""Show what training sees: clips after the augmentations, and a report on the data set.

Clips have their boxes, masks, classes and track ids, and the matches of the temporal term. The
report counts objects, lengths and sizes, and names faults and tracks to look at.

Examples (after ``make quickstart``): a JSON file of one's own, and the data set of a config.

    python tools/visualize_data.py --json datasets/quickstart/train.json \
        --images datasets/quickstart/train/JPEGImages --output look.png

    python tools/visualize_data.py --config-file configs/quickstart/maskfreevis_tiny.yaml \
        --output look.mp4 --html look.html --opts INPUT.SAMPLING_FRAME_NUM 5

See docs/checking_data.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from tqdm import tqdm

from maskfreevis_ext.config import default_config, load_config
from maskfreevis_ext.data import (
    YTVISDatasetMapper,
    check_images,
    register_from_config,
    register_ytvis_instances,
)
from maskfreevis_ext.data.frame_check import check_frame_files, describe_frames, find_faults
from maskfreevis_ext.data.frame_headers import read_headers
from maskfreevis_ext.data.frame_rules import FrameRules
from maskfreevis_ext.data.image_mapper import CocoClipDatasetMapper
from maskfreevis_ext.data.track_statistics import describe_videos
from maskfreevis_ext.data.train_sets import check_supervision, load_dataset
from maskfreevis_ext.engine.arguments import add_opts, add_overwrite
from maskfreevis_ext.engine.data_report import (
    LEGEND,
    SeenClip,
    Signals,
    clip_rows,
    draw_matches,
    look_at,
    report_lines,
    write_page,
)
from maskfreevis_ext.engine.inputs import config_inputs
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.files import check_outputs, mark_outputs
from maskfreevis_ext.inference.drawing import contact_sheet
from maskfreevis_ext.inference.video_io import FrameWriter, check_image_name, write_image
from maskfreevis_ext.losses.affinities import AffinitySettings

DATASET_NAME = "visualize_data"  #: Name under which --json is registered.
MOST_FAULTS = 10  #: Faulty frames that the report names.
VIDEO_SIZE = (360, 1280)  #: (H, W) of an mp4, into which all clips are fitted.


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", default="", metavar="YAML", help="YAML whose INPUT keys are used"
    )
    parser.add_argument("--dataset", help="a registered name (default: DATASETS.TRAIN's first)")
    parser.add_argument(
        "--json", metavar="PATH", help="an annotation file; with --images, instead of --dataset"
    )
    parser.add_argument(
        "--images", metavar="PATH", help="the folder that its file_names are relative to"
    )
    parser.add_argument("--output", metavar="FILE", help="PNG (contact sheet) or .mp4 to write")
    parser.add_argument(
        "--html", metavar="FILE", help="report to write, one page with the pictures in it"
    )
    add_overwrite(parser)
    parser.add_argument("--clips", type=int, default=4, help="clips to draw, each of another video")
    parser.add_argument(
        "--sample", type=int, default=20, help="clips to take the shares of cells from"
    )
    parser.add_argument("--seed", type=int, default=0)
    add_opts(parser)
    parser.add_argument("words", nargs="*", metavar="KEY VALUE", help="the same without --opts")
    args = parser.parse_args(argv)
    args.opts = [*args.words, *args.opts]
    return args


def make_config(args: argparse.Namespace) -> CfgNode:
    """The config of the command line; without a file, masks are drawn where there are any.

    Raises:
        ConfigError: A word of the command line is no key, or a value does not fit its key.
    """
    if args.config_file:
        return load_config(args.config_file, args.opts)
    cfg = default_config()
    try:
        cfg.merge_from_list(["INPUT.FORMAT", "RGB", "INPUT.SUPERVISION", "data", *args.opts])
    except (KeyError, ValueError, AssertionError) as error:
        raise ConfigError(f"The command line: {error}. Expected pairs of KEY VALUE.") from None
    return cfg


def choose_dataset(args: argparse.Namespace, cfg: CfgNode) -> str:
    """Name of the data set to draw, which is registered if it is given by files.

    Raises:
        ConfigError: No data set is named, or only one of --json and --images is given.
    """
    register_from_config(cfg)
    if bool(args.json) != bool(args.images):
        raise ConfigError("--json and --images belong together: give both, or --dataset.")
    if args.json:
        register_ytvis_instances(DATASET_NAME, {}, args.json, args.images)
        return DATASET_NAME
    if not args.dataset and not cfg.DATASETS.TRAIN:
        raise ConfigError("Nothing to draw: give --json and --images, --dataset or --config-file.")
    return args.dataset or cfg.DATASETS.TRAIN[0]


def check_outputs_of(args: argparse.Namespace, cfg: CfgNode) -> list[str]:
    """The files that will be written.

    Raises:
        ConfigError: There is none, or one has a wrong ending.
        DataError: One is an input, is not this tool's own, or cannot be written.
    """
    outputs = [path for path in (args.output, args.html) if path]
    if not outputs:
        raise ConfigError("Nothing to write: give --output look.png (or .mp4), --html, or both.")
    inputs = config_inputs(cfg, args.config_file, datasets=[args.dataset] if args.dataset else [])
    inputs += [path for path in (args.json, args.images) if path]
    check_outputs(outputs, inputs, overwrite=args.overwrite)
    if args.output and not is_video(args.output):
        check_image_name(args.output)
    if args.html and not args.html.endswith((".html", ".htm")):
        raise ConfigError(f"--html: expected a name that ends in .html, got {args.html}.")
    return outputs


def is_video(path: str) -> bool:
    """Whether an output is an mp4."""
    return path.lower().endswith(".mp4")


def look(
    cfg: CfgNode, videos: Sequence[dict], num_clips: int, num_drawn: int
) -> tuple[list[SeenClip], Signals, int]:
    """Draw random clips, each of another video: those to draw, and the signals of all of them.

    Raises:
        DataError: A frame cannot be read.
    """
    with_objects = [video for video in videos if any(video["annotations"])] or videos
    chosen = np.random.permutation(len(with_objects))[: max(num_clips, num_drawn, 1)]
    mapper: Callable[[dict], dict] = YTVISDatasetMapper(cfg, is_train=True)
    if videos[0].get("is_image"):
        mapper = CocoClipDatasetMapper(cfg)
    settings = AffinitySettings(**AffinitySettings.from_config(cfg))
    drawn: list[SeenClip] = []
    total = Signals()
    for place, index in enumerate(tqdm(chosen, desc="looking at clips", unit="clip")):
        clip = look_at(mapper(with_objects[index]), cfg.INPUT.FORMAT, settings)
        total += clip.signals
        if place < max(num_drawn, 1):
            drawn.append(clip)
    drawn.sort(key=lambda clip: clip.sample["video_id"])
    return drawn, total, len(chosen)


def fit_canvas(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture, shrunk where needed, in the middle of a black one of a size (H, W)."""
    factor = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    height, width = (max(1, int(side * factor)) for side in picture.shape[:2])
    canvas = np.zeros((*size, 3), np.uint8)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas[top : top + height, left : left + width] = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA
    )
    return canvas


def write_video(path: str, clips: Sequence[SeenClip], class_names: Sequence[str]) -> None:
    """An mp4 of the clips: objects on the left, matches on the right, two frames a second."""
    with FrameWriter(path, fps=2.0) as writer:
        for clip in clips:
            rows = clip_rows(clip, class_names)
            for t, cell in enumerate(rows[0].cells):
                matches = [
                    number for number, (_, later) in enumerate(clip.affinities.pairs) if later == t
                ]
                other = draw_matches(clip, matches[0]) if matches else np.zeros_like(cell)
                writer.write(fit_canvas(np.concatenate([cell, other], axis=1), VIDEO_SIZE))


def run(args: argparse.Namespace) -> None:
    """Write the pictures and the report.

    Raises:
        ConfigError: An option cannot be used.
        DataError: The data set cannot be used, or a file not written.
    """
    cfg = make_config(args)
    outputs = check_outputs_of(args, cfg)
    name = choose_dataset(args, cfg)
    rules = FrameRules.from_config(cfg)
    videos = load_dataset(name, "--dataset", rules)
    check_images(videos)
    node = cfg.INPUT.PSEUDO if videos[0].get("is_image") else cfg.INPUT
    check_supervision(node.SUPERVISION, videos)
    headers = read_headers([path for video in videos for path in video["file_names"]])
    faults = find_faults(videos, headers, rules)
    good = [video for video in videos if not find_faults([video], headers, rules)]
    if not good:
        check_frame_files(cfg, videos, name)
    np.random.seed(args.seed)
    clips, signals, count = look(cfg, good, args.sample, args.clips)
    class_names = MetadataCatalog.get(name).thing_classes
    statistics = describe_videos(videos)
    more = len(faults) - MOST_FAULTS
    rest = [f"{more} more frames cannot be used."] if more > 0 else []
    statistics.problems[:0] = [*faults[:MOST_FAULTS], *rest]
    statistics.notes = describe_frames(headers, rules)
    print("\n".join(report_lines(statistics, signals, count, class_names)))
    if args.output and is_video(args.output):
        write_video(args.output, clips, class_names)
    elif args.output:
        rows = [row for clip in clips for row in clip_rows(clip, class_names)]
        write_image(args.output, contact_sheet(rows, legend=LEGEND))
    if args.html:
        title = f"Data set {args.json or name}"
        write_page(*(args.html, title, videos, statistics, clips, (signals, count), class_names))
    mark_outputs(outputs)
    print(f"{len(clips)} clips of {len(videos)} videos drawn in {', '.join(outputs)}")


def main(argv: list[str] | None = None) -> int:
    """Run the tool; bad input ends with exit code 2 and one message."""
    exit_on_user_error(run, parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
