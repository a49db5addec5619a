"""Run a job: in a child process whose environment makes timings steady, or in this one.

``launch`` is what the command calls; it does not import PyTorch. ``main`` measures in the process
that calls it, with the environment as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.options import Options, parse_args

#: glibc: keep freed memory in the process. Returning it to the system distorts short timings.
MALLOC_SETTINGS = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 40),
}
WAIT_POLICY = "OMP_WAIT_POLICY"  #: set by --wait-policy

#: Variables on which the figures depend; the report prints them.
REPORTED_VARIABLES = (*MALLOC_SETTINGS, WAIT_POLICY)


def measurement_environment(wait_policy: str) -> dict[str, str]:
    """The variables of this process, changed to those that a measurement wants.

    Args:
        wait_policy: OMP_WAIT_POLICY, or "default" to leave it unset.
    """
    environment = {name: value for name, value in os.environ.items() if name != WAIT_POLICY}
    environment.update(MALLOC_SETTINGS)
    if wait_policy != "default":
        environment[WAIT_POLICY] = wait_policy
    return environment


def launch() -> int:
    """Measure in an environment that suits it; starts a child process where this one is another.

    The C library and OpenMP read their variables when a process starts, so that setting them here
    would come too late. The child is this command again; output and error stream are shared.

    Returns:
        The exit code.
    """
    environment = measurement_environment(parse_args().wait_policy)
    if environment == dict(os.environ):
        main()
        return 0
    names = [name for name in REPORTED_VARIABLES if name in environment]
    settings = " ".join(f"{name}={environment[name]}" for name in names)
    print(f"starting a child process with {settings}", file=sys.stderr, flush=True)
    command = [sys.executable, *sys.orig_argv[1:]]
    try:
        code = subprocess.run(command, env=environment, check=False).returncode  # noqa: S603
    except KeyboardInterrupt:
        return 130
    return code if code >= 0 else 128 - code  # of a signal, as shells have it


def run(options: Options) -> None:
    """Measure, print, write.

    Raises:
        ConfigError: An option or a config key does not fit.
        DataError: A loss is missing or not finite, or the report cannot be written.
    """
    import torch

    from benchmarks.jobs import JOBS
    from benchmarks.report import as_json, print_report
    from maskfreevis_ext.config import load_config
    from maskfreevis_ext.engine.inputs import config_inputs
    from maskfreevis_ext.errors import ConfigError
    from maskfreevis_ext.files import check_outputs, mark_outputs, write_report
    from maskfreevis_ext.precision import amp_dtype_of

    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        if options.command == "gpu":
            print("skipped: PyTorch sees no CUDA device on this machine")
            return
        raise ConfigError(
            f"--device: expected a device that this machine has, got {options.device}; try cpu"
        )
    if getattr(options, "dtype", "float32") != "float32":
        amp_dtype_of("--dtype", options.dtype, options.device)
    inputs: list[str] = []
    if getattr(options, "config_file", ""):
        cfg = load_config(options.config_file, options.opts, options.device)
        inputs = config_inputs(cfg, options.config_file)
    check_outputs([options.json] if options.json else [], inputs, overwrite=options.overwrite)
    torch.set_num_threads(options.threads)
    result = JOBS[options.command](options)
    report = as_json(result, options, REPORTED_VARIABLES)
    print_report(result, report)
    if options.json:
        write_report({**report}, options.json)
        mark_outputs([options.json])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure in this process; exits with code 2 and one line for an error of the user."""
    options = parse_args(argv)
    from maskfreevis_ext.engine.user_errors import exit_on_user_error

    exit_on_user_error(run, options)
