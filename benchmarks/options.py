"""The command line: one subcommand per job, and the options of each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

R50_CONFIG = (
    Path(__file__).resolve().parents[1] / "configs/youtubevis_2019/maskfreevis_R50_bs16.yaml"
)

QUICKSTART_CONFIG = R50_CONFIG.parents[1] / "quickstart" / "maskfreevis_tiny.yaml"

DESCRIPTION = """\
Measure time, memory and values of the losses, the matching, deformable attention, a whole training
step, the loading of clips or inference, side by side with a literal implementation of the same
formulas (benchmarks/literal). The ratios that are printed are literal / here. Progress goes to
stderr.
"""

EXAMPLES = """\
examples, from the root of a checkout:
  python tools/benchmark.py matcher --height 96 --width 160 --rounds 3
  python tools/benchmark.py criterion --json criterion.json
  python tools/benchmark.py infer --lengths 16 64 --long 256 --json infer.json
  python tools/benchmark.py step --height 192 --width 256 --multimask
  python tools/benchmark.py step --height 192 --width 256 --dtype bfloat16
  python tools/benchmark.py settings --height 192 --width 256 --batch 2
  python tools/benchmark.py data
  python tools/benchmark.py --device cuda
"""

#: What ``infer`` can measure.
INFER_SIDES = ("literal", "windows", "stream", "frames")

#: Subcommand → what it measures.
COMMANDS = {
    "similarity": "Lab colours, colour edges and patch matches of a batch",
    "matcher": "assignment of queries to objects, for all decoder outputs and clips",
    "criterion": "all losses, with colour similarities and matching",
    "step": "forward and backward pass of the whole model",
    "settings": "keys that trade time and memory of a step: memory format, checkpointing, ...",
    "infer": "inference on videos of several lengths: time, latency and peak memory",
    "data": "clips read and augmented by the mapper, and what share of a step waits for them",
    "gpu": "criterion, deform_attn, step and infer, roofline, largest batch and profile of a "
    "device; also: tools/benchmark.py --device cuda",
    "deform_attn": "multi-scale deformable attention of the pixel decoder (--batch counts frames)",
}


class Options(argparse.Namespace):
    """What was asked for on the command line.

    The attributes after ``overwrite`` exist only for the subcommands that have the option.
    """

    command: str
    rounds: int
    threads: int
    warmup: int
    device: str
    seed: int
    wait_policy: str
    clock: str
    json: str | None
    overwrite: bool

    batch: int
    frames: int
    height: int
    width: int
    objects: int
    pairs: str

    queries: int
    classes: int
    layers: int
    mask_dim: int
    points: int
    with_product: bool

    config_file: str
    multimask: bool
    dtype: str
    compile: bool
    steps: int
    opts: list[str]

    lengths: list[int]
    long: list[int]
    sides: list[str]

    channels: int
    heads: int
    levels: int
    sampling_points: int

    def replace(self, **changes: object) -> Options:
        """A copy with other values."""
        return Options(**{**vars(self), **changes})


def positive(text: str) -> int:
    """Read a whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: It is below 1.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def _add_sizes(parser: argparse.ArgumentParser, **sizes: int) -> None:
    for name, default in sizes.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=positive, default=default, help=f"default {default}")


def _add_scene(parser: argparse.ArgumentParser, batch: int) -> None:
    _add_sizes(parser, batch=batch, frames=3, height=360, width=640, objects=5)
    parser.add_argument(
        "--pairs",
        help="frame pairs of the temporal loss, MODEL.MASKFREE.TEMPORAL.PAIRS; default: all up to "
        "3 frames, cycle above, as in the reference",
    )


def _add_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="also a side in mixed precision with this type; float16 needs a GPU; default float32",
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add_sizes(parser, rounds=5, threads=2)
    parser.add_argument(
        "--warmup", type=int, default=1, help="rounds that are not counted; default 1"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--wait-policy",
        choices=("default", "passive", "active"),
        default="default",
        help="OMP_WAIT_POLICY of both sides; default leaves it unset, as in a training run; "
        "passive is steadier on a busy machine and wakes threads late",
    )
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="processor: time of all threads of the process, for one thread on a busy machine",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that this tool did not make"
    )


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        _add_common(command)
        if name in ("similarity", "matcher", "criterion"):
            _add_scene(command, batch=2)
            _add_sizes(command, queries=100, classes=40, layers=10, mask_dim=256, points=20_000)
        if name == "criterion":
            command.add_argument(
                "--with-product",
                action="store_true",
                help="also both sides with the product of embeddings and features",
            )
        if name == "step":
            _add_scene(command, batch=1)
            _add_dtype(command)
            command.add_argument("--config-file", default=str(R50_CONFIG))
            command.add_argument(
                "--multimask", action="store_true", help="also the step with the multimask head"
            )
            command.add_argument("--opts", nargs="*", default=[], help="KEY VALUE pairs")
        if name == "settings":
            _add_scene(command, batch=1)
            command.add_argument("--config-file", default=str(R50_CONFIG))
            command.add_argument(
                "--compile", action="store_true", help="also MODEL.COMPILE, which takes minutes"
            )
            command.add_argument("--opts", nargs="*", default=[], help="KEY VALUE pairs")
        if name == "infer":
            _add_sizes(command, height=180, width=320)
            for option, default, text in (
                ("--lengths", [16, 64, 256], "frames of the videos of both sides"),
                ("--long", [1024], "frames of further videos, without the literal side"),
            ):
                command.add_argument(
                    option, type=positive, nargs="*", default=default, help=f"{text}; {default}"
                )
            _add_dtype(command)
            command.add_argument("--sides", nargs="+", choices=INFER_SIDES, default=[*INFER_SIDES])
            command.add_argument("--config-file", default=str(R50_CONFIG))
            command.add_argument("--opts", nargs="*", default=[], help="KEY VALUE pairs")
            command.set_defaults(rounds=1)
        if name == "data":
            _add_sizes(command, height=720, width=1280, steps=5)
            command.add_argument("--config-file", default=str(R50_CONFIG))
            command.add_argument("--opts", nargs="*", default=[], help="KEY VALUE pairs")
        if name == "deform_attn":
            _add_sizes(command, batch=1, height=384, width=640, channels=256, heads=8)
            _add_sizes(command, levels=3, sampling_points=4)
    return parser


def parse_args(argv: Sequence[str] | None = None) -> Options:
    """Read the command line; ends the process with code 2 where it is wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--device"]:  # without a subcommand: everything on that device
        words = ["gpu", *words]
    options = build_parser().parse_args(words, namespace=Options())
    if getattr(options, "pairs", "") is None:
        options.pairs = "all" if options.frames <= 3 else "cycle"
    return options
