#!/usr/bin/env python3
r"""Run the batch of a training that ended with NaN or Inf again, and show where it begins.

A training keeps its first such batch as OUTPUT_DIR/bad_batch_ITERATION.pt, with its weights:

    python tools/replay_batch.py --config-file configs/quickstart/maskfreevis_tiny.yaml \
        --batch output/quickstart/bad_batch_0000012.pt

It runs in float32 with the random numbers of the step. A batch that is finite here and was not in
the training needs a wider type: SOLVER.AMP.DTYPE bfloat16, or SOLVER.AMP.ENABLED False.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from maskfreevis_ext.config import load_config
from maskfreevis_ext.engine.arguments import add_device, add_opts
from maskfreevis_ext.engine.predict import start_log
from maskfreevis_ext.engine.replay import read_bad_batch, replay
from maskfreevis_ext.engine.user_errors import exit_on_user_error

#: Lines of each list that are printed.
_SHOWN = 10


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="YAML", help="of the training")
    parser.add_argument("--batch", required=True, metavar="bad_batch_*.pt")
    add_device(parser)
    add_opts(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Replay and print."""
    start_log()
    cfg = load_config(args.config_file, args.opts, args.device)
    content = read_bad_batch(args.batch)
    print(f"in the training: {content['error']}\n")
    result = replay(cfg, content, args.batch)
    for number, losses in enumerate(result.losses):
        print(f"losses of batch {number}:")
        print("\n".join(f"  {name:30} {value:.6g}" for name, value in losses.items()))
    _show("outputs that are not finite, the first one first", result.outputs)
    _show("parameters whose gradients are not finite", result.gradients)
    if result.error:
        print(f"the forward pass ended: {result.error}")
    if result.is_finite:
        print("All losses, outputs and gradients are finite in float32.")


def _show(title: str, lines: list[str]) -> None:
    if lines:
        print(f"{title}: {len(lines)}")
        print("\n".join(f"  {line}" for line in lines[:_SHOWN]))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool; exits with code 2 and one line when a file cannot be used."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    main()
