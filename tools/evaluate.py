#!/usr/bin/env python
"""Score a YouTube-VIS submission against a ground truth with masks; needs no model and no GPU.

    python tools/evaluate.py --gt valid.json --results results.json --json scores.json

Prints AP and AR in percent as the official evaluator computes them, and AP per class. A file that
cannot be used gives one line that says why, and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence

from maskfreevis_ext.data.ytvis import read_json
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.evaluation.ytvis_eval import METRICS, Scores, read_results, score
from maskfreevis_ext.evaluation.ytvis_evaluation import format_scores


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
    values: dict[str, object] = {name: _or_none(scores.metrics[name]) for name in METRICS}
    values["per_category"] = {name: _or_none(value) for name, value in scores.per_class}
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=2)
            file.write("\n")
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error


def run(args: argparse.Namespace) -> None:
    """Score, print, write."""
    scores = score(
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


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


if __name__ == "__main__":
    main()
