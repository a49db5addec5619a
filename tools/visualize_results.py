#!/usr/bin/env python3
r"""Draw a results file on its data set: an mp4 per video and a contact sheet.

Example (after ``make quickstart``):

    python tools/visualize_results.py --gt datasets/quickstart/val.json \
        --image-root datasets/quickstart/val/JPEGImages \
        --results output/quickstart/inference/results.json --output output/pictures

Drawn are masks, class, number and score of each track. On the sheet the ground truth (its masks, or
its boxes where it has no masks) stands below the predictions, and a prediction has the colour of
the object that it matches; unmatched predictions and missed objects are marked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from maskfreevis_ext.engine.arguments import add_confidence, add_overwrite
from maskfreevis_ext.engine.predict import start_log
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.evaluation.ground_truth import read_results
from maskfreevis_ext.inference.result_views import write_result_views


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gt", required=True, metavar="JSON", help="YTVIS annotation file of the data set"
    )
    parser.add_argument(
        "--image-root", required=True, metavar="FOLDER", help="what its file_names are relative to"
    )
    parser.add_argument("--results", required=True, metavar="results.json")
    parser.add_argument("--output", required=True, metavar="FOLDER")
    add_confidence(parser)
    add_overwrite(parser)
    parser.add_argument("--max-videos", type=int, help="draw only the first videos")
    parser.add_argument(
        "--sheet-videos", type=int, default=8, help="videos on the sheet (default %(default)s)"
    )
    parser.add_argument(
        "--columns",
        type=int,
        default=6,
        help="frames of each video on the sheet (default %(default)s)",
    )
    parser.add_argument(
        "--fps", type=float, default=10.0, help="frames per second (default %(default)s)"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Draw and say where the pictures are."""
    logger = start_log()
    views = write_result_views(
        args.gt,
        args.image_root,
        read_results(args.results),
        args.output,
        min_score=args.confidence,
        max_videos=args.max_videos,
        sheet_videos=args.sheet_videos,
        columns=args.columns,
        fps=args.fps,
        results_name=args.results,
        overwrite=args.overwrite,
    )
    logger.info(
        "Wrote %d videos to %s and the contact sheet %s",
        len(views.videos),
        args.output,
        views.sheet,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool; exits with code 2 and one line when a file cannot be used."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    main()
