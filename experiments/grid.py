"""``grid``: train the runs of an experiment that are not finished, then write its report."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path
from types import FrameType

from detectron2.config import CfgNode
from tqdm import tqdm

from experiments.report import (
    check_experiment_file,
    check_report,
    save_experiment,
    write_report,
)
from experiments.runs import plan_runs, train_runs
from experiments.spec import (
    Experiment,
    parse_experiment,
    parse_words,
    read_experiment,
    with_choice,
)
from maskfreevis_ext.config import load_config
from maskfreevis_ext.engine.arguments import add_overwrite
from maskfreevis_ext.engine.inputs import config_inputs
from maskfreevis_ext.engine.interrupt import INTERRUPTED
from maskfreevis_ext.errors import ConfigError

logger = logging.getLogger(__name__)

NAME = "grid"
HELP = "train variants of a config with several seeds; a killed grid goes on where it was"
EXAMPLE = r"""    python tools/experiment.py grid \
        --spec configs/experiments/quickstart_supervision.yaml

    python tools/experiment.py grid --name radius --seeds 1 2 3 --reference R1 \
        --config-file configs/quickstart/maskfreevis_tiny.yaml \
        --variant R1 --variant R2 MODEL.MASKFREE.TEMPORAL.SEARCH_RADIUS 2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--spec", metavar="YAML", help="the experiment; see configs/experiments")
    parser.add_argument("--name", help="without --spec: name of the experiment")
    parser.add_argument("--config-file", metavar="YAML", help="without --spec: the base config")
    parser.add_argument(
        "--variant",
        nargs="+",
        action="append",
        metavar=("NAME", "KEY VALUE"),
        help="without --spec: a variant and its overrides; once for each",
    )
    parser.add_argument("--reference", help="variant that the others are compared with")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds in place of the file's")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these variants of the file")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each (2)")
    parser.add_argument("--output", type=Path, help="folder; default: output/experiments/NAME")
    add_overwrite(parser)
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="overrides of all variants"
    )


def run(args: argparse.Namespace) -> int:
    """Train what is not finished, and write the report.

    Returns:
        0; 1 where a run failed; 130 after an interruption.

    Raises:
        ConfigError: An option, the file or the config of a variant does not fit.
        DataError: A file of an earlier call cannot be used.
    """
    if args.jobs < 1:
        raise ConfigError(f"--jobs: expected at least 1, got {args.jobs}.")
    experiment = with_choice(_experiment(args), args.seeds, args.only, args.opts)
    folder = args.output or Path("output") / "experiments" / experiment.name
    configs = check_configs(experiment)
    iterations = [int(cfg.SOLVER.MAX_ITER) for cfg in configs]
    inputs = [args.spec] if args.spec else []
    for cfg, variant in zip(configs, experiment.variants, strict=True):
        inputs += config_inputs(cfg, variant.config)
    runs = plan_runs(experiment, folder, iterations)
    check_report(folder, args.overwrite, inputs)
    check_experiment_file(folder, args.overwrite, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    save_experiment(experiment, iterations, folder)
    previous = signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        failed = train_runs(runs, args.jobs, lambda line: tqdm.write(line, file=sys.stderr))
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from the checkpoints", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(write_report(experiment, runs, folder))
    if failed:
        names = ", ".join(run.name for run in failed)
        print(f"{len(failed)} of {len(runs)} runs failed: {names}", file=sys.stderr)
    return 1 if failed else 0


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    """End on SIGTERM as on Ctrl-C, so that the processes of the runs are ended too."""
    raise KeyboardInterrupt


def _experiment(args: argparse.Namespace) -> Experiment:
    """The experiment of the file, or of the command line alone.

    Raises:
        ConfigError: Options contradict each other, or something in the file does not fit.
    """
    own = {"--name": args.name, "--config-file": args.config_file, "--variant": args.variant}
    given = [option for option, value in own.items() if value]
    if args.spec:
        if given or args.reference:
            given += ["--reference"] if args.reference else []
            raise ConfigError(f"--spec: expected it alone, got {', '.join(given)} beside it.")
        return read_experiment(args.spec)
    if len(given) < len(own):
        missing = ", ".join(sorted(own.keys() - set(given)))
        raise ConfigError(f"expected --spec, or {', '.join(own)}; missing: {missing}.")
    variants = []
    for name, *words in args.variant:
        options = parse_words(words, f"--variant {name}")
        variants.append(
            {"name": name, "options": dict(zip(options[::2], options[1::2], strict=True))}
        )
    content = {"name": args.name, "config": args.config_file, "variants": variants}
    return parse_experiment({**content, "reference": args.reference}, "command line")


def check_configs(experiment: Experiment) -> list[CfgNode]:
    """Load the config of each variant, so that a mistake shows before hours of training.

    Args:
        experiment: The experiment.

    Returns:
        The config of each.

    Raises:
        ConfigError: A config cannot be used; names the variant.
    """
    configs = []
    for variant in experiment.variants:
        try:
            configs.append(load_config(variant.config, variant.options))
        except ConfigError as error:
            raise ConfigError(f"variant {variant.name}: {error}") from error
    return configs
