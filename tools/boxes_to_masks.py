#!/usr/bin/env python
r"""Masks for the boxes of an annotation file.

    python tools/boxes_to_masks.py --json datasets/quickstart/train.json \
        --images datasets/quickstart/train/JPEGImages --output output/masks.json

Takes annotations with boxes and writes the same with a mask for every box, and how far it can be
trusted (docs/boxes_to_masks.md). Ids, boxes and masks that are there already stay as they are;
those masks help to find the others. The masks come from a small network per object that is fitted
to its own video, or, with --method grabcut, from GrabCut in each frame. A run that was stopped goes
on with the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
from detectron2.config import CfgNode

from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.readers import READERS
from maskfreevis_ext.data.writers import WRITERS
from maskfreevis_ext.engine.arguments import add_device, add_opts, add_overwrite
from maskfreevis_ext.engine.inputs import config_inputs
from maskfreevis_ext.engine.predict import build_predictor
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.inference.boxes_to_masks import ModelEvidence, Options, boxes_to_masks
from maskfreevis_ext.inference.boxes_to_masks.job import check_options
from maskfreevis_ext.out_of_memory import explain_out_of_memory

_SHOWN = 5  # of the least certain objects
_LOWER = (
    "the size of the frames (sides of 3/4 save about 44 %)",
    "the method (--method grabcut needs about half the memory)",
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--json", required=True, metavar="PATH", help="annotations with boxes")
    add("--images", required=True, metavar="PATH", help="folder of frames or videos, or a video")
    add("--output", required=True, metavar="PATH", help="annotations with masks")
    add(
        "--from",
        dest="source_format",
        choices=sorted(READERS),
        default=Options.source_format,
        help="format of --json (default %(default)s)",
    )
    add(
        "--to",
        dest="target_format",
        choices=sorted(WRITERS),
        default=Options.target_format,
        help="format of --output (default %(default)s)",
    )
    add(
        "--method",
        choices=("pixel_head", "grabcut"),
        default=Options.method,
        help="what makes the masks (default %(default)s)",
    )
    add("--minutes", type=float, metavar="M", help="time for all masks; default: what it takes")
    add("--steps", type=int, default=Options.steps, help="steps of a fit (default %(default)s)")
    add("--seed", type=int, default=Options.seed, help="of the fits (default %(default)s)")
    add(
        "--min-confidence",
        type=float,
        default=Options.min_confidence,
        metavar="C",
        help="mark objects and frames below (default %(default)s)",
    )
    add("--review", default="", metavar="HTML", help="page to look the masks through")
    add(
        "--previous",
        default="",
        metavar="FILE",
        help="output of an earlier run, some of whose masks were corrected in --json; the others"
        " are made anew",
    )
    add_overwrite(parser)
    add("--config-file", metavar="YAML", help="trained model whose masks are joined in")
    add("--weights", default="", metavar="FILE", help="its checkpoint; default: MODEL.WEIGHTS")
    add_device(parser)
    add_opts(parser)
    return parser.parse_args(argv)


def model_config(args: argparse.Namespace) -> CfgNode | None:
    """The config of the trained model of the command line, if there is one.

    Raises:
        ConfigError: Weights without a config, or a config that cannot be used.
    """
    if not args.config_file:
        if args.weights or args.opts or args.device:
            raise ConfigError(
                "--weights, --device and --opts: expected --config-file with them, got none."
            )
        return None
    return load_config(args.config_file, args.opts, args.device)


def run(args: argparse.Namespace) -> None:
    """Make the masks; prints the objects with the least confidence.

    Raises:
        ConfigError: An option cannot be used, or the ImageNet weights are not installed.
        DataError: The annotations cannot be used, or the output cannot be written.
        CheckpointError: The weights of a model cannot be used.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the message says how to go on.
    """
    names = vars(args).keys() & Options.__dataclass_fields__.keys()
    options = Options(**{name: getattr(args, name) for name in names})
    cfg = model_config(args)
    weights = "" if cfg is None else args.weights or cfg.MODEL.WEIGHTS
    inputs = [] if cfg is None else config_inputs(cfg, args.config_file, weights=weights)
    check_options(options, inputs)
    try:
        evidence = None if cfg is None else ModelEvidence(build_predictor(cfg, weights), weights)
        with explain_out_of_memory(_LOWER if cfg is None else [*_LOWER, "no --config-file"]):
            confidences = boxes_to_masks(options, evidence)
    except KeyboardInterrupt as stop:
        raise type(stop)(
            f"Stopped. Finished videos are in {args.output}.partial; the same command goes on."
        ) from None
    doubtful = sum(value < options.min_confidence for value in confidences.values())
    print(
        f"{args.output}: masks of {len(confidences)} objects, {doubtful} of them doubtful."
        " Look first at the least certain:"
    )
    for track in sorted(confidences, key=confidences.__getitem__)[:_SHOWN]:
        print(f"  object {track}: confidence {confidences[track]:.2f}")
    if args.review:
        print(f"{args.review}: pictures of them")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    main()
