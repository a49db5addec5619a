#!/usr/bin/env python
r"""Convert annotated videos from one format to another, or check them.

Examples:
    python tools/convert_dataset.py --from cvat --input annotations.xml --images frames \
        --to ytvis --output my/train.json
    python tools/convert_dataset.py --from mot --input MOT17/train --to ytvis --output mot.json \
        --split 0.2 --classes classes.json
    python tools/convert_dataset.py --from ytvis --input my/train.json --to cvat --output xml
    python tools/convert_dataset.py --from ytvis --input my/train.json --images frames --check

docs/converting.md says what each format holds and what is lost. A file that cannot be used ends
the run with one message and exit code 2, and nothing is written.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
from maskfreevis_ext.data.convert import (
    Conversion,
    Summary,
    check_annotations,
    check_target,
    convert,
    open_set,
)
from maskfreevis_ext.data.readers import READERS, ReadOptions
from maskfreevis_ext.data.writers import WRITERS, WriteOptions
from maskfreevis_ext.engine.arguments import add_overwrite
from maskfreevis_ext.engine.user_errors import USER_ERROR, exit_on_user_error
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.inference.cut_frames import cut_videos


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, got {text!r}")
    return int(match[2]), int(match[1])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from",
        dest="source_format",
        required=True,
        choices=sorted(READERS),
        help="format of --input",
    )
    parser.add_argument("--input", required=True, metavar="PATH", help="file or folder to read")
    parser.add_argument(
        "--to", dest="target_format", choices=sorted(WRITERS), help="format of --output"
    )
    parser.add_argument("--output", metavar="PATH", help="file or folder to write")
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="folder of the frames: names and sizes that annotations lack; they are checked",
    )
    parser.add_argument(
        "--video",
        metavar="PATH",
        help="video file, or folder of video files, that is cut into frames under --images first",
    )
    parser.add_argument(
        "--size", type=_size, metavar="WxH", help="size of the frames, where nothing else says it"
    )
    parser.add_argument(
        "--first-frame", type=int, choices=(0, 1), help="number of the first frame in the files"
    )
    parser.add_argument(
        "--corners",
        action="store_true",
        help="boxes of the JSON or CSV file are corners x0 y0 x1 y1 by mistake: mend them",
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help='JSON {"old name": "new name"}; others are left out',
    )
    parser.add_argument(
        "--split", type=float, metavar="SHARE", help="part of the videos for validation, as 0.2"
    )
    parser.add_argument("--to-boxes", action="store_true", help="leave masks out")
    parser.add_argument(
        "--masks-as", choices=("mask", "polygon"), default="mask", help="for --to cvat"
    )
    add_overwrite(parser)
    parser.add_argument(
        "--check", action="store_true", help="read everything, report problems, write nothing"
    )
    return parser.parse_args(argv)


def print_notes(notes: Counter[str]) -> None:
    """Print what was mended or left out."""
    for what, count in sorted(notes.items()):
        if count:
            print(f"  {count} {what}")


def print_summary(name: str, summary: Summary) -> None:
    """Print what a set holds."""
    print(f"{name}: {summary}")
    classes = [f"{label} {count}" for label, count in summary.classes.most_common(20)]
    if classes:
        print(f"  tracks by class: {', '.join(classes)}")


def run(args: argparse.Namespace) -> int:
    """Convert or check; the exit code.

    Raises:
        DataError: The annotations cannot be used, or an output cannot be written.
        ConfigError: An option is missing.
    """
    if args.video is not None and args.images is None:
        raise ConfigError("--video needs --images, the folder for its frames.")
    if not args.check and (args.target_format is None or args.output is None):
        raise ConfigError("expected --to and --output, or --check.")
    read = ReadOptions(args.images, args.size, args.first_frame, args.corners)
    if args.check:
        if args.video is not None:
            cut_videos(args.video, args.images)
        dataset = open_set(args.source_format, args.input, read, args.classes, args.to_boxes)
        summary, problems = check_annotations(dataset, lambda text: print(f"problem: {text}"))
        print_summary(args.input, summary)
        print_notes(dataset.notes)
        print(f"{problems} problems in {len(dataset.videos)} videos.")
        return USER_ERROR if problems else 0
    job = Conversion(
        source_format=args.source_format,
        source=args.input,
        target_format=args.target_format,
        target=args.output,
        read=read,
        write=WriteOptions(args.masks_as, args.first_frame),
        classes=args.classes,
        split=args.split,
        to_boxes=args.to_boxes,
        overwrite=args.overwrite,
    )
    if args.video is not None:
        check_target(job, args.video)
        cut_videos(args.video, args.images)
    results = convert(job)
    for path, (summary, _) in results.items():
        print_summary(path, summary)
    for _, notes in list(results.values())[:1]:
        print_notes(notes)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
