"""Communication between the processes of a distributed job, of which there may be just one."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

_LOCAL_PROCESS_GROUP: Any = None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes of the job."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Index of this process in the job."""
    return dist.get_rank() if _is_distributed() else 0


@functools.lru_cache
def create_local_process_group(num_workers_per_machine: int) -> None:
    """Create the group of the processes on this machine.

    Every process calls it, with the same number. A second call with that number does nothing.

    Raises:
        AssertionError: It was called with another number before, or the number of processes is not
            a multiple of it.
    """
    global _LOCAL_PROCESS_GROUP
    if _LOCAL_PROCESS_GROUP is not None:
        raise AssertionError("The local process group exists already.")
    world_size = get_world_size()
    if world_size % num_workers_per_machine:
        raise AssertionError(
            f"World size {world_size} is not a multiple of {num_workers_per_machine} per machine."
        )
    own_machine = get_rank() // num_workers_per_machine
    for machine in range(world_size // num_workers_per_machine):
        first = machine * num_workers_per_machine
        # new_group is collective: also the groups of other machines are created by everybody.
        group = dist.new_group(list(range(first, first + num_workers_per_machine)))
        if machine == own_machine:
            _LOCAL_PROCESS_GROUP = group


def get_local_rank() -> int:
    """Index of this process among those on this machine.

    Raises:
        AssertionError: Nobody created the group of the processes on this machine.
    """
    if not _is_distributed():
        return 0
    if _LOCAL_PROCESS_GROUP is None:
        raise AssertionError(
            "There is no local process group. Start the processes with launch(), or call "
            "comm.create_local_process_group after init_process_group."
        )
    return dist.get_rank(group=_LOCAL_PROCESS_GROUP)


def is_main_process() -> bool:
    """Whether this is the process of rank 0."""
    return get_rank() == 0


def synchronize() -> None:
    """Wait until every process is here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


@functools.lru_cache
def _cpu_group() -> Any:
    """A gloo group of all processes, for objects that are exchanged through the CPU."""
    if dist.get_backend() == dist.Backend.NCCL:
        return dist.new_group(backend="gloo")
    return dist.group.WORLD


def forget_process_groups() -> None:
    """Drop the references to process groups, before they are destroyed."""
    global _LOCAL_PROCESS_GROUP
    _LOCAL_PROCESS_GROUP = None
    create_local_process_group.cache_clear()
    _cpu_group.cache_clear()


def all_gather(data: Any) -> list[Any]:
    """Every process's ``data`` (anything that pickles), in the order of ranks, on every process."""
    if get_world_size() == 1:
        return [data]
    gathered: list[Any] = [None] * get_world_size()
    dist.all_gather_object(gathered, data, group=_cpu_group())
    return gathered


def gather(data: Any, dst: int = 0) -> list[Any]:
    """Every process's ``data`` on process ``dst``; an empty list on the others."""
    if get_world_size() == 1:
        return [data]
    gathered: list[Any] | None = [None] * get_world_size() if get_rank() == dst else None
    dist.gather_object(data, gathered, dst=dst, group=_cpu_group())
    return gathered or []


def shared_random_seed() -> int:
    """A random number, from numpy's generator of rank 0, that is the same on every process."""
    return all_gather(np.random.randint(2**31))[0]
