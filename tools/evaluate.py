#!/usr/bin/env python
r"""Score a YouTube-VIS submission against a ground truth with masks; needs no model and no GPU.

Example (after ``make quickstart``):

    python tools/evaluate.py --gt datasets/quickstart/val.json \
        --results output/quickstart/inference/results.json --json scores.json

Prints AP and AR in percent as the official evaluator computes them, and AP per class. A file that
cannot be used gives one line that says why, and exit code 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.evaluation.evaluator import format_scores
from maskfreevis_ext.evaluation.score import METRICS, Scores, read_results, score_results
from maskfreevis_ext.files import write_report


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gt", required=True, metavar="GT.json", help="YTVIS annotation file with masks"
    )
    parser.add_argument("--results", required=True, metavar="results.json", help="the submission")
    parser.add_argument(
        "--json",
        metavar="OUT.json",
        help="also write the numbers here, in percent; null where a number is undefined",
    )
    return parser.parse_args(argv)


def write_scores(scores: Scores, path: str) -> None:
    """Write the numbers as JSON: one key per metric, and ``per_category`` with AP per class.

    Raises:
        DataError: The file cannot be written.
    """
    values: dict[str, object] = {name: scores.metrics[name] for name in METRICS}
    values["per_category"] = dict(scores.per_class)
    write_report(values, path)


def run(args: argparse.Namespace) -> None:
    """Score, print, write."""
    scores = score_results(
        read_json(args.gt),
        read_results(args.results),
        ground_truth_name=args.gt,
        results_name=args.results,
    )
    print(format_scores(scores, METRICS))
    if args.json:
        write_scores(scores, args.json)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool; exits with code 2 and one line when a file cannot be used."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    main()
