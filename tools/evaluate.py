#!/usr/bin/env python
r"""Score a YouTube-VIS submission against a ground truth with masks; needs no model and no GPU.

Example (after ``make quickstart``):

    python tools/evaluate.py --gt datasets/quickstart/val.json \
        --results output/quickstart/inference/results.json --metrics ap hota jf --json scores.json

Prints AP and AR in percent as the official evaluator computes them, and AP per class; with
``--metrics`` also HOTA, IDF1 and J&F (docs/evaluation.md).

``--per-object`` gives the video IoU of each object instead, for masks that were made for the boxes
of these very objects (tools/boxes_to_masks.py): matched by annotation id, or else by box.

    python tools/evaluate.py --gt real_masks.json --results output/masks.json --per-object \
        --table objects.csv

A file that cannot be used gives one line that says why, and exit code 2.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.engine.arguments import add_overwrite, score
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.evaluation.ground_truth import (
    read_detections,
    read_ground_truth,
    read_results,
)
from maskfreevis_ext.evaluation.metrics import (
    MIN_SCORE,
    TRACK_METRIC_REGISTRY,
    format_scores,
    metric_names,
)
from maskfreevis_ext.evaluation.per_object import (
    ObjectScores,
    objects_markdown,
    score_objects,
    summarize_objects,
    write_objects,
)
from maskfreevis_ext.evaluation.score import Scores
from maskfreevis_ext.files import check_outputs, mark_outputs, write_report

#: Short names of ``--metrics``.
SHORT_NAMES = {"ap": "ytvis_ap", "jf": "davis_jf"}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--gt", required=True, metavar="GT.json", help="YTVIS annotation file with masks"
    )
    parser.add_argument(
        "--results",
        required=True,
        metavar="results.json",
        help="the submission; with --per-object also an annotation file with masks",
    )
    names = [*SHORT_NAMES, *metric_names()]
    parser.add_argument(
        "--metrics", nargs="+", choices=names, metavar="NAME", help=f"any of {', '.join(names)}"
    )
    parser.add_argument(
        "--min-score",
        type=score,
        default=MIN_SCORE,
        help="least score of a track for HOTA and IDF1 (default %(default)s)",
    )
    parser.add_argument(
        "--per-object", action="store_true", help="video IoU of each object, and the means"
    )
    parser.add_argument(
        "--table", metavar="FILE", help="with --per-object: write the table here, .csv or .md"
    )
    parser.add_argument(
        "--json",
        metavar="OUT.json",
        help="also write the numbers here: percent, IoU of --per-object in [0, 1]; null"
        " where a number is undefined",
    )
    add_overwrite(parser)
    args = parser.parse_args(argv)
    if args.per_object and args.metrics:
        parser.error("--per-object and --metrics: choose one of them")
    if args.table and not args.per_object:
        parser.error("--table needs --per-object")
    return args


def score_values(all_scores: Sequence[Scores]) -> dict[str, object]:
    """The numbers for ``--json``: those of AP at the top, those of other metrics by their task."""
    values: dict[str, object] = {}
    for scores in all_scores:
        numbers: dict[str, object] = dict(scores.metrics)
        if scores.per_class:
            numbers["per_category"] = dict(scores.per_class)
        values.update(numbers if scores.task == "segm" else {scores.task: numbers})
    return values


def score_metrics(args: argparse.Namespace) -> dict[str, object]:
    """Score and print the metrics; returns the numbers."""
    truth = read_ground_truth(read_json(args.gt), args.gt)
    detections = read_detections(read_results(args.results), truth, args.results)
    names = dict.fromkeys(SHORT_NAMES.get(name, name) for name in args.metrics or ["ap"])
    all_scores = []
    for name in names:
        scores = TRACK_METRIC_REGISTRY.get(name)(truth, detections, args.min_score)
        print(("\n" if all_scores else "") + format_scores(scores))
        all_scores.append(scores)
    return score_values(all_scores)


def score_per_object(args: argparse.Namespace) -> dict[str, object]:
    """Score and print the objects, write their table; returns the means."""
    scores = score_objects(
        read_json(args.gt),
        _read_either(args.results),
        ground_truth_name=args.gt,
        predicted_name=args.results,
    )
    print(objects_markdown(scores))
    print(_how_found(scores))
    if args.table:
        write_objects(scores, args.table)
    return {name: {"objects": count, **means} for name, count, means in summarize_objects(scores)}


def _read_either(path: str) -> Any:
    """An annotation file or a results file."""
    try:
        with open(path, encoding="utf-8") as file:
            is_list = file.read(4096).lstrip()[:1] == "["
    except (OSError, ValueError):
        is_list = True  # says what is wrong with the file
    return read_results(path) if is_list else read_json(path)


def _how_found(scores: Sequence[ObjectScores]) -> str:
    counts = Counter(each.found_by for each in scores)
    return (
        f"Masks of {counts['id']} objects by annotation id, of {counts['box']} by box, of"
        f" {counts['']} none (IoU 0)."
    )


def run(args: argparse.Namespace) -> None:
    """Score, print, write.

    Raises:
        DataError: A file cannot be used, or an output not written.
    """
    outputs = [path for path in (args.json, args.table) if path]
    check_outputs(outputs, [args.gt, args.results], overwrite=args.overwrite)
    values = score_per_object(args) if args.per_object else score_metrics(args)
    if args.json:
        write_report(values, args.json)
    mark_outputs(outputs)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool; exits with code 2 and one line when a file cannot be used."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    main()
