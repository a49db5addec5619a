"""Starts the processes of a job on this machine, watches them, and ends all when one has failed.

A process that fails says why in a file of the job's private folder; the one that started it prints
each message once. Exit codes: 0; 2 after an error of the user; 130 and 143 after Ctrl-C and
SIGTERM; 1 otherwise.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing.connection
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
import torch.multiprocessing as mp

from maskfreevis_ext.engine.interrupt import INTERRUPTED, TERMINATED
from maskfreevis_ext.engine.launch_env import Place, join_group
from maskfreevis_ext.engine.user_errors import USER_ERROR, end_after
from maskfreevis_ext.errors import ConfigError, signal_name
from maskfreevis_ext.files import write_json

STARTER = "--num-gpus"
#: Exit code of a process that lost another one, which is the one to report.
LOST = 70
#: Seconds that the others have to end by themselves after one process has failed.
GRACE = 4.0
#: Seconds after the end of the starting process in which the others have to end.
ORPHAN_GRACE = 60.0

_STOPPED = (0, INTERRUPTED, TERMINATED)
_LOST = re.compile(
    r"gloo/|NCCL|Connection (closed by peer|reset by peer|refused)|Timed out waiting|Broken pipe"
)


class Job(NamedTuple):
    """The processes of a job on this machine.

    Attributes:
        per_machine: Number of processes on each machine.
        machines: Number of machines.
        machine_rank: Index of this machine.
        dist_url: Where the processes meet: ``tcp://HOST:PORT``; "auto": in a private file.
        timeout: How long a process waits for the others.
    """

    per_machine: int
    machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    timeout: timedelta = timedelta(minutes=10)


def start_job(function: Callable[..., Any], args: tuple, job: Job) -> None:
    """Call a function in every process of a job; in a job of one process, call it here.

    Args:
        function: What every process does; it must be importable by name.
        args: Its arguments; they must pickle.
        job: The processes.

    Raises:
        ConfigError: ``dist_url`` cannot be used.
        SystemExit: A process has failed or was stopped; the message names it.
    """
    if job.per_machine * job.machines <= 1:
        function(*args)
        return
    with tempfile.TemporaryDirectory(prefix="maskfreevis_ext-") as folder:  # mode 0700
        host, port, file = _meeting_point(job, folder)
        places = [
            Place(
                starter=STARTER,
                rank=job.machine_rank * job.per_machine + local_rank,
                world_size=job.machines * job.per_machine,
                local_rank=local_rank,
                host=host,
                port=port,
                file=file,
            )
            for local_rank in range(job.per_machine)
        ]
        context = mp.start_processes(
            _run_process,
            args=(places, function, args, job.timeout, folder, os.getpid()),
            nprocs=job.per_machine,
            join=False,
        )
        killed, stopped_by = _watch(context.processes, folder)
        ends = []
        for place, process in zip(places, context.processes, strict=True):
            told = _told(folder, place.local_rank)
            was_killed = told is None and place.local_rank in killed
            code, message = told or (process.exitcode or 0, "")
            ends.append(_End(place.rank, code, message, was_killed))
    code, message = verdict(ends, job.timeout, stopped_by)
    if message:
        print(f"\n{message}", file=sys.stderr, flush=True)
    if code:
        sys.exit(code)


def _meeting_point(job: Job, folder: str) -> tuple[str, int, str]:
    """Host, port and file in which the processes meet.

    Raises:
        ConfigError: ``dist_url`` cannot be used.
    """
    if job.dist_url == "auto":
        if job.machines > 1:
            raise ConfigError(
                "--dist-url: expected tcp://HOST:PORT, an address of the first machine that the "
                f"others can reach, for {job.machines} machines; got none."
            )
        return "", 0, os.path.join(folder, "store")
    match = re.fullmatch(r"tcp://(\[[0-9a-fA-F:]+\]|[\w.-]+):([0-9]{1,5})", job.dist_url)
    if match is None or int(match[2]) > 65535:
        raise ConfigError(f"--dist-url: expected tcp://HOST:PORT, got {job.dist_url!r}.")
    return match[1].strip("[]"), int(match[2]), ""


def _run_process(
    local_rank: int,
    places: list[Place],
    function: Callable[..., Any],
    args: tuple,
    timeout: timedelta,
    folder: str,
    starter: int,
) -> None:
    """One process of the job, from its start to its end."""
    place = places[local_rank]
    threading.Thread(target=_end_with, args=(starter,), daemon=True).start()
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_own_fault)
    code, message = 0, ""
    try:
        join_group(place, len(places), function, args, timeout)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
        message = e.code if isinstance(e.code, str) else ""
    except (Exception, KeyboardInterrupt) as e:
        end = end_after(e)
        if end is not None:
            code, message = end
        elif is_lost_contact(e):
            code, message = LOST, str(e)
        else:
            code = 1
            print(f"\nRank {place.rank}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            message = f"{type(e).__name__}: {e}"
    # Told in a file: a thread of gloo may abort the process while it ends.
    with contextlib.suppress(OSError):
        write_json({"code": code, "message": message}, _report_path(folder, local_rank))
    sys.exit(code)


def _report_path(folder: str, local_rank: int) -> Path:
    return Path(folder, f"rank{local_rank}.json")


def _told(folder: str, local_rank: int) -> tuple[int, str] | None:
    """Exit code and message that a process has left, if it came to that."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        told = json.loads(_report_path(folder, local_rank).read_text())
        return told["code"], told["message"]
    return None


def _end_with(starter: int) -> None:
    """End this process some time after the one that started it has ended.

    PyTorch sends SIGINT then, which is enough unless the process waits for another one.
    """
    while os.getppid() == starter:
        time.sleep(1.0)
    time.sleep(ORPHAN_GRACE)
    os._exit(1)


def is_lost_contact(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that another process of the job is gone.

    Args:
        error: The error; None: there is none.
    """
    seen = 0
    while error is not None and seen < 20:
        is_of_torch = isinstance(error, dist.DistError)
        if is_of_torch or (isinstance(error, RuntimeError) and _LOST.search(str(error))):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _is_own_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and is_lost_contact(record.exc_info[1]))


def _watch(processes: list[BaseProcess], folder: str) -> tuple[set[int], int]:
    """Wait for all processes, which report in a folder; when one fails, end the others.

    Returns:
        Places in the list of those that had to be killed, and the number of the signal that this
        process got meanwhile, 0 for none.
    """
    deadline = float("inf")
    with _signals_passed_on(processes) as signals:
        while alive := [process for process in processes if process.is_alive()]:
            multiprocessing.connection.wait([process.sentinel for process in alive], timeout=0.2)
            codes = [
                (_told(folder, index) or [process.exitcode])[0]
                for index, process in enumerate(processes)
                if process.exitcode is not None
            ]
            if any(code not in _STOPPED for code in codes):
                deadline = min(deadline, time.monotonic() + GRACE)
            if time.monotonic() > deadline or len(signals) > 1:
                break
        left = {index for index, process in enumerate(processes) if process.is_alive()}
        for index in left:
            _kill_with_children(processes[index])
        for process in processes:
            process.join()
    return left, signals[0] if signals else 0


@contextlib.contextmanager
def _signals_passed_on(processes: list[BaseProcess]) -> Iterator[list[int]]:
    """The first Ctrl-C or SIGTERM goes to all processes, which end by themselves; all are listed.

    The second one is for this process alone, which then kills the others.
    """
    signals: list[int] = []

    def pass_on(number: int, _: object) -> None:
        signals.append(number)
        for process in processes:
            if len(signals) == 1 and process.pid is not None and process.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill_with_children(process: BaseProcess) -> None:
    """Kill a process and those that it has started, such as the workers that load its data."""
    children = _children(process.pid) if process.pid else []
    process.kill()
    for child in children:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError, ValueError):
        for task in Path(f"/proc/{pid}/task").iterdir():  # Linux only; others end by themselves
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


class _End(NamedTuple):
    """How a process ended.

    Attributes:
        rank: Index in the job.
        code: Exit code; negative: the number of the signal that ended it.
        message: Its error; may be empty.
        was_killed: By the starting process, because others had failed.
    """

    rank: int
    code: int
    message: str = ""
    was_killed: bool = False


def verdict(ends: list[_End], timeout: timedelta, stopped_by: int = 0) -> tuple[int, str]:
    """What a job's processes have ended with, in one message.

    Args:
        ends: One of each process.
        timeout: How long the processes have waited for each other.
        stopped_by: Number of the signal that has stopped the job; 0: none.

    Returns:
        Exit code, and the message; "" where there is nothing to say.
    """
    of_users = [end for end in ends if end.code == USER_ERROR]
    if of_users:
        return USER_ERROR, _message_of(of_users, name_ranks=len(of_users) < len(ends))
    stopped = [end for end in ends if end.code in (INTERRUPTED, TERMINATED)]
    if stopped_by or (stopped and all(end.code in _STOPPED for end in ends)):
        return (128 + stopped_by if stopped_by else stopped[0].code), _message_of(stopped)
    fault = _fault(ends, timeout)
    if not fault:
        return 0, ""
    again = "The other processes were stopped. --resume goes on from the newest checkpoint."
    return 1, f"{fault} {again}"


def _message_of(ends: list[_End], name_ranks: bool = False) -> str:
    """The messages of some processes, each text once."""
    texts: dict[str, int] = {}
    for end in ends:
        if end.message:
            texts.setdefault(end.message, end.rank)
    return "\n".join(f"Rank {rank}: {text}" if name_ranks else text for text, rank in texts.items())


def _fault(ends: list[_End], timeout: timedelta) -> str:
    """Which process was the first to fail, and how; "" for none."""
    aborted = -signal.SIGABRT  # NCCL ends a process so that has waited for too long
    for end in ends:
        if end.code < 0 and not end.was_killed and end.code != aborted:
            name = signal_name(-end.code)
            memory = ", often for lack of memory" if name == "SIGKILL" else ""
            return f"Rank {end.rank} was ended by {name}{memory}."
    for end in ends:
        if end.code > 0 and end.code not in (*_STOPPED, LOST):
            said = f": {end.message}" if end.message else f" with exit code {end.code}"
            return f"Rank {end.rank} failed{said}."
    lost = [end for end in ends if end.code in (LOST, aborted) and not end.was_killed]
    silent = ", ".join(str(end.rank) for end in ends if end.was_killed)
    if silent:
        seconds = timeout.total_seconds()
        return f"Rank {silent} did not answer within {seconds:g} s (DISTRIBUTED.TIMEOUT)."
    return f"Rank {lost[0].rank} lost the others: {lost[0].message}." if lost else ""
