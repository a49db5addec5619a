#!/usr/bin/env python3
r"""Bring published weights under the names of a config's model, and say what fits.

    python tools/convert_weights.py --input resnet50-0676ba61.pth \
        --config-file configs/youtubevis_2019/maskfreevis_R50_bs16.yaml \
        --output pretrained_model/resnet50.pth

The input is recognised by its content: a ResNet of torchvision, a Swin Transformer, an image
checkpoint of Mask2Former, a checkpoint of MaskFreeVIS (.pth, .pkl or .safetensors). No code in it
is run. MODEL.WEIGHTS takes the output. See docs/weights.md.
"""

from __future__ import annotations

import argparse
import sys

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
from maskfreevis_ext.config import load_config
from maskfreevis_ext.engine.arguments import add_overwrite
from maskfreevis_ext.engine.convert_weights import (
    check_output_name,
    convert,
    read_weights,
    write_weights,
)
from maskfreevis_ext.engine.inputs import config_inputs
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.files import check_outputs, mark_outputs, write_report


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, metavar="FILE", help="the published weights")
    add(
        "--config-file", required=True, metavar="YAML", help="config of the model that they are for"
    )
    add("--output", metavar="FILE", help=".pth or .safetensors to write (default: only report)")
    add("--report", metavar="JSON", help="write the names of all weights that fit and that do not")
    add_overwrite(parser)
    add("--device", default="cpu", help=argparse.SUPPRESS)
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Convert a file.

    Raises:
        ConfigError: An option or the config cannot be used.
        CheckpointError: The weights cannot be used, or nothing of them fits.
        DataError: A file cannot be written.
    """
    outputs = [path for path in (args.output, args.report) if path]
    cfg = load_config(args.config_file, args.opts, args.device)
    inputs = [args.input, *config_inputs(cfg, args.config_file)]
    check_outputs(outputs, inputs, overwrite=args.overwrite)
    if args.output:
        check_output_name(args.output)
    weights, class_names = read_weights(args.input)
    conversion = convert(weights, cfg, args.input)
    print(f"{args.input}: {conversion.kind}.")
    print("\n".join(conversion.lines()))
    if args.output:
        write_weights(conversion.weights, args.output, class_names)
        print(f"Written to {args.output}; use it by MODEL.WEIGHTS {args.output}")
    if args.report:
        write_report(conversion.as_dict(), args.report)
    mark_outputs(outputs)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; what cannot be used ends with exit code 2 and one line."""
    exit_on_user_error(run, parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
