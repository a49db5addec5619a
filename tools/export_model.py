#!/usr/bin/env python3
r"""Write a trained model as ONNX and torch.export files, each checked against the model.

Example (after ``make quickstart``; ONNX needs the extra "export"):

    python tools/export_model.py --config-file configs/quickstart/maskfreevis_tiny.yaml \
        --video-size 96 128 --output output/quickstart/export \
        --opts MODEL.WEIGHTS output/quickstart/model_final.pth

``tools/demo.py --onnx output/quickstart/export`` runs on the result. docs/export.md describes the
files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from maskfreevis_ext.config import load_config
from maskfreevis_ext.engine.arguments import add_opts, add_overwrite
from maskfreevis_ext.engine.inputs import config_inputs
from maskfreevis_ext.engine.predict import (
    build_predictor,
    category_ids,
    find_class_names,
    start_log,
)
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.files import check_outputs, mark_outputs
from maskfreevis_ext.inference.export.write import (
    FORMATS,
    check_formats,
    export_model,
    output_files,
)
from maskfreevis_ext.out_of_memory import explain_out_of_memory


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
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for the files")
    add_overwrite(parser)
    parser.add_argument(
        "--video-size",
        type=int,
        nargs=2,
        default=(720, 1280),
        metavar=("HEIGHT", "WIDTH"),
        help="size of the videos in pixels, from which INPUT.MIN_SIZE_TEST gives the size of the"
        " graphs; other videos are fitted in (default 720 1280)",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=sorted(FORMATS),
        default=sorted(FORMATS),
        help="formats to write (default: both)",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="class names, where neither the weights nor the config's data set have them",
    )
    add_opts(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Export the model.

    Raises:
        ConfigError: An option or a config key cannot be used, or a package is missing.
        CheckpointError: The weights cannot be used.
        DataError: A file cannot be written, or would replace one that this tool did not make.
        NumericError: A file does not give what the model gives.
    """
    logger = start_log()
    check_formats(args.formats)
    height, width = args.video_size
    if min(height, width) < 1:
        raise ConfigError(f"--video-size: expected two numbers > 0, got {height} {width}.")
    cfg = load_config(args.config_file, args.opts, "cpu")
    files = output_files(args.output, args.formats)
    check_outputs(files, config_inputs(cfg, args.config_file), overwrite=args.overwrite)
    predictor = build_predictor(cfg)
    names = find_class_names(cfg, args.classes, predictor.class_names)
    ids = category_ids(cfg, predictor.class_names)
    with explain_out_of_memory(
        [
            f"--video-size ({height} {width}; 3/4 of both save about 44 %)",
            f"INPUT.MIN_SIZE_TEST ({cfg.INPUT.MIN_SIZE_TEST}; 3/4 saves about 44 %)",
            "--formats (one at a time)",
        ]
    ):
        description = export_model(
            cfg,
            predictor.model,
            args.output,
            video_size=(height, width),
            formats=args.formats,
            categories=[{"id": ids[label], "name": name} for label, name in enumerate(names or ())],
        )
    mark_outputs(files)
    for name, graph in description["graphs"].items():
        for kind, error in graph["largest_error"].items():
            print(f"{graph['files'][kind]}: {name}, largest difference from the model {error:.1e}")
    logger.info("Wrote the export of %d x %d frames to %s", height, width, args.output)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool; exits with code 2 and one line when something cannot be used."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    main()
