"""Join the group of processes that ``torchrun``, Slurm's ``srun`` or ``--num-gpus`` has started.

The first two start every process of a job themselves and say in environment variables which one it
is. Such a process joins the group of the job; it starts no further processes. Where all processes
run on one machine, nothing that they open can be reached from another one.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.exchange import all_gather_json

_LOOPBACK = "127.0.0.1"
_DEFAULT_PORT = 29500  # torchrun's
_SLURM_PORTS = (20000, 10000)  # the first, and how many: one for each job of a machine
_NODE_LISTS = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")


@dataclass(frozen=True)
class Place:
    """Which process of a job this one is.

    Attributes:
        starter: "torchrun" (or any starter that sets its variables), "Slurm" or "--num-gpus".
        rank: Index of the process in the job.
        world_size: Number of processes of the job, on all machines together.
        local_rank: Index of the process on its machine; also the index of its GPU.
        host: Name or address of the machine on which the process of rank 0 runs.
        port: Port on which the processes meet there.
        file: A file in which the processes meet, instead of host and port.
    """

    starter: str
    rank: int
    world_size: int
    local_rank: int
    host: str
    port: int
    file: str = ""

    @property
    def is_on_one_machine(self) -> bool:
        """Whether the processes meet where other machines cannot."""
        if self.file or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name
            return False

    @property
    def url(self) -> str:
        """Host and port, as PyTorch takes them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def read_place(environment: Mapping[str, str]) -> Place | None:
    """Which process of a job this one is, as the environment says.

    RANK and WORLD_SIZE go before Slurm's variables: ``srun`` may start ``torchrun``. MASTER_ADDR
    and MASTER_PORT say where the processes meet. Without MASTER_ADDR that is 127.0.0.1, or the
    first machine of a Slurm job that runs on several.

    Args:
        environment: Usually ``os.environ``.

    Returns:
        The place; None where nobody started several processes, so that this one may.

    Raises:
        ConfigError: A variable is missing, is no number, or is outside its range.

    >>> place = read_place({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a"})
    >>> place.rank, place.world_size, place.local_rank, place.url
    (3, 4, 1, 'tcp://a:29500')
    >>> read_place({}) is None
    True
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        rank, world_size, local_rank = _read_ranks(environment, *names)
        host, port = _LOOPBACK, _DEFAULT_PORT
        starter = "torchrun"
    elif "SLURM_PROCID" in environment and environment.get("SLURM_NTASKS", "1") != "1":
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
        rank, world_size, local_rank = _read_ranks(environment, *names)
        host = _first_slurm_host(environment)
        first, count = _SLURM_PORTS
        port = first + _read_number(environment, "SLURM_JOB_ID", default=0) % count
        starter = "Slurm"
    else:
        return None
    return Place(
        starter=starter,
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        host=environment.get("MASTER_ADDR") or host,
        port=_read_number(environment, "MASTER_PORT", default=port, largest=65535),
    )


def _read_ranks(environment: Mapping[str, str], *names: str) -> tuple[int, int, int]:
    """Rank, number of processes and rank on the machine from three variables that belong together.

    Raises:
        ConfigError: One is missing or does not fit the others.
    """
    rank, world_size, local_rank = (_read_number(environment, name) for name in names)
    if not local_rank <= rank < world_size:
        raise ConfigError(
            f"Environment variables {', '.join(names)}: expected local rank <= rank < number of "
            f"processes, got rank {rank}, {world_size} processes, local rank {local_rank}. Unset "
            f"{names[0]} and {names[1]} to train without the processes of another program."
        )
    return rank, world_size, local_rank


def _read_number(
    environment: Mapping[str, str], name: str, default: int | None = None, largest: int = 10**9
) -> int:
    """The number in a variable; the default where the variable is not set.

    Raises:
        ConfigError: It is no whole number from 0 to ``largest``, or it is not set and there is no
            default.
    """
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > largest:
        got = "it is not set" if text is None else f"got {text!r}"
        raise ConfigError(
            f"Environment variable {name}: expected a whole number from 0 to {largest}, {got}. "
            "torchrun and srun set such variables in every process; unset those of starters that "
            "are not used."
        )
    return int(text)


def _first_slurm_host(environment: Mapping[str, str]) -> str:
    """Host of rank 0: 127.0.0.1 for a job on one machine, else the first of Slurm's list.

    Raises:
        ConfigError: Slurm's list cannot be read.
    """
    found = next((environment[name] for name in _NODE_LISTS if environment.get(name)), "")
    if not re.search(r"[,\[]", found):
        return _LOOPBACK
    return first_host(found)


def first_host(node_list: str) -> str:
    """The first machine of a list as Slurm writes it.

    Args:
        node_list: Names with ranges of numbers in brackets.

    Raises:
        ConfigError: The text is no such list.

    >>> first_host("node[07-09,12],other3")
    'node07'
    >>> first_host("rack[1-2]n[10-11]")
    'rack1n10'
    >>> first_host("alpha,beta")
    'alpha'
    """
    entry = re.match(r"((?:[^\[\],]|\[[^\[\]]*\])+)(?:,|$)", node_list)
    host = re.sub(r"\[(\w+)[^\[\]]*\]", r"\1", entry[1]) if entry else ""
    if not re.fullmatch(r"[\w.-]+", host):
        raise ConfigError(
            f"SLURM_JOB_NODELIST: expected a list of machines such as node[1-4], got {node_list!r}."
            " Set MASTER_ADDR to the name of the first machine."
        )
    return host


def check_options(place: Place, processes: int, machines: int) -> None:
    """Compare the options that would start processes with the processes that were started.

    Args:
        place: The place of this process.
        processes: --num-gpus; 1 stands for "not given".
        machines: --num-machines; 1 stands for "not given".

    Raises:
        ConfigError: They contradict each other.
    """
    fits = processes <= 1 or (place.world_size % processes == 0 and place.local_rank < processes)
    if machines > 1:
        fits = fits and place.world_size == machines * max(processes, 1)
    if not fits:
        raise ConfigError(_contradiction(place, f"{place.world_size} processes in all", processes))


def _contradiction(place: Place, started: str, processes: int) -> str:
    return (
        f"--num-gpus: {place.starter} has started {started} (this one is rank {place.rank}, number "
        f"{place.local_rank} on its machine), but the command asks for {processes} on each machine."
        f" Leave out --num-gpus and --num-machines: {place.starter}'s own options say how many "
        "there are."
    )


def join_group(
    place: Place, processes: int, function: Callable[..., Any], args: tuple, timeout: timedelta
) -> Any:
    """Call a function as one process of the job, and leave the job afterwards.

    Args:
        place: The place of this process.
        processes: --num-gpus; 1 stands for "not given".
        function: What the process does.
        args: Its arguments.
        timeout: How long a process waits for the others.

    Returns:
        What the function returns.

    Raises:
        ConfigError: There are fewer GPUs than processes on this machine, the port is in use, or the
            machines do not have the same number of processes, or another one than --num-gpus.
    """
    has_gpu = torch.cuda.is_available()
    if has_gpu and place.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"{place.starter} has started process {place.local_rank} of this machine, which has "
            f"{torch.cuda.device_count()} GPUs. Start one process for each GPU."
        )
    if has_gpu:
        torch.cuda.set_device(place.local_rank)
    if place.is_on_one_machine:
        _stay_on_this_machine()
    store = open_store(place, timeout)
    dist.init_process_group(
        backend="nccl" if has_gpu else "gloo",
        init_method=place.url if store is None else None,
        store=store,
        rank=place.rank,
        world_size=place.world_size,
        timeout=timeout,
    )
    comm.create_local_process_group(_processes_per_machine(place, processes))
    comm.synchronize()  # nobody runs ahead into a collective while others still start
    result = function(*args)
    comm.synchronize()
    dist.destroy_process_group()
    return result


def open_store(place: Place, timeout: timedelta) -> dist.Store | None:
    """Where the processes exchange their addresses.

    PyTorch's own store listens on all addresses of the machine, whatever the name of the host; that
    of a job on one machine is a file, or listens on the loopback only.

    Args:
        place: The place of this process.
        timeout: How long a process waits for the others.

    Returns:
        The store; None where PyTorch has to open it: torchrun has its own, and other machines must
        reach that of several machines.

    Raises:
        ConfigError: The port is in use.
    """
    if place.file:
        store: dist.Store = dist.FileStore(place.file, place.world_size)
        store.set_timeout(timeout)
        return store
    has_own = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if has_own or not place.is_on_one_machine:
        return None
    listening = _listen(place) if place.rank == 0 else None
    return dist.TCPStore(
        place.host,
        place.port,
        place.world_size,
        is_master=place.rank == 0,
        timeout=timeout,
        master_listen_fd=listening,
    )


def _listen(place: Place) -> int:
    """A socket that listens on the loopback address of a place, for the store to take over."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((place.host, place.port))
        except OSError as error:
            raise ConfigError(
                f"MASTER_PORT: expected a free port of {place.host}, got {place.port} "
                f"({error.strerror or error}). Set MASTER_PORT to another one in all processes."
            ) from error
        listener.listen()
        return listener.detach()


def _stay_on_this_machine() -> None:
    """Let gloo and NCCL open their connections on the loopback, unless the user chose otherwise."""
    names = [name for _, name in socket.if_nameindex() if re.fullmatch(r"lo[0-9]*", name)]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if names:
            os.environ.setdefault(variable, names[0])


def _processes_per_machine(place: Place, processes: int) -> int:
    """How many processes each machine has; asks all of them.

    Raises:
        ConfigError: Not the same number on all machines, or another one than --num-gpus.
    """
    local_ranks = all_gather_json(place.local_rank)
    count = max(local_ranks) + 1
    if local_ranks != [rank % count for rank in range(place.world_size)]:
        raise ConfigError(
            f"{place.starter}: expected the same number of processes on each machine, numbered "
            f"machine by machine; the numbers on their machines are {local_ranks}. With Slurm, set "
            "--ntasks-per-node and leave out --distribution."
        )
    if processes not in (1, count):
        raise ConfigError(_contradiction(place, f"{count} on each machine", processes))
    return count
