"""Starts the processes of a distributed job."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

DEFAULT_TIMEOUT = timedelta(minutes=30)


def _find_free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Call a function in every process of a job; with one process, call it here.

    Args:
        main_func: The function; it must be importable by name.
        num_gpus_per_machine: Processes on each machine.
        num_machines: Machines; this function is called on each of them.
        machine_rank: Index of this machine.
        dist_url: Where the processes meet, e.g. ``tcp://127.0.0.1:29500``. ``auto`` or None: a free
            port of this machine's loopback, for one machine only.
        args: Arguments of the function.
        timeout: How long a process waits for the others.

    Raises:
        AssertionError: Several machines are asked for without a ``dist_url``.
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        main_func(*args)
        return
    if dist_url is None or dist_url == "auto":
        if num_machines > 1:
            raise AssertionError("Several machines need a dist_url that all of them can reach.")
        dist_url = f"tcp://127.0.0.1:{_find_free_port()}"
    settings = (world_size, num_gpus_per_machine, machine_rank, dist_url, timeout)
    mp.start_processes(_run_worker, nprocs=num_gpus_per_machine, args=(settings, main_func, args))


def _run_worker(
    local_rank: int, settings: tuple, main_func: Callable[..., Any], args: tuple
) -> None:
    world_size, processes, machine_rank, dist_url, timeout = settings
    has_gpu = torch.cuda.is_available()
    if has_gpu and processes > torch.cuda.device_count():
        raise AssertionError(
            f"{processes} processes were asked for, but there are {torch.cuda.device_count()} GPUs."
        )
    try:
        dist.init_process_group(
            backend="nccl" if has_gpu else "gloo",
            init_method=dist_url,
            world_size=world_size,
            rank=machine_rank * processes + local_rank,
            timeout=timeout,
        )
    except Exception:
        logging.getLogger(__name__).error("Process group URL: %s", dist_url)
        raise
    comm.create_local_process_group(processes)
    if has_gpu:
        torch.cuda.set_device(local_rank)
    comm.synchronize()  # nobody runs ahead into a collective while others still start
    main_func(*args)
    # Threads of the group that outlive the interpreter abort the process now and then. After an
    # error nothing is waited for: the others may hang in a collective, and are killed.
    comm.forget_process_groups()
    if dist.is_initialized():
        dist.destroy_process_group()
