"""What the processes of a job do in tests: work, fail, wait for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.util import Finalize
from pathlib import Path

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
import torch
import torch.distributed as dist
from detectron2.utils import comm

from maskfreevis_ext.engine.processes import Job, start_job
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.exchange import all_gather_json, gather_json
from tests.helpers.training import ROOT
from tests.helpers.waiting import wait_until

#: State of a listening socket in /proc/net/tcp.
_LISTENS = "0A"


def listening_addresses() -> list[str]:
    """Addresses on which this process accepts connections, in the kernel's hexadecimal form."""
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            own.add(os.readlink(descriptor))
        except OSError:  # the one of this listing
            continue
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if os.path.exists(table) else ():
            fields = line.split()
            if fields[3] == _LISTENS and f"socket:[{fields[9]}]" in own:
                found.append(fields[1].split(":")[0])
    return found


def exchange(folder: str) -> None:
    """Send plain values and tensors to each other; write what came."""
    rank = comm.get_rank()
    values = all_gather_json({"rank": rank, "text": "é" * (1000 * rank), "pair": (1, None)})
    total = torch.tensor([rank + 1.0])
    dist.all_reduce(total)
    on_one = gather_json([rank, float("nan") if rank else 0.5])
    Path(folder, f"rank{rank}.json").write_text(
        json.dumps((values, total.item(), on_one, listening_addresses()))
    )


class Folder(str):
    """A folder for an argument of a job: a process that gets it waits until all have started.

    The timeout of the job then counts from there, however long the machine takes for the start.
    """

    def __reduce__(self) -> tuple[Callable[[str], Folder], tuple[str]]:
        return _meet, (str(self),)


def _meet(folder: str) -> Folder:
    Path(folder, f"started{os.getpid()}").touch()
    assert wait_until(lambda: len(list(Path(folder).glob("started*"))) == 2)
    return Folder(folder)


def misbehave(how: str, folder: str) -> None:
    """Rank 1 misbehaves while rank 0 waits for it; both write their process numbers first."""
    Path(folder, f"pid{comm.get_rank()}").write_text(str(os.getpid()))
    comm.synchronize()
    if comm.get_rank() == 1 or how == "everywhere":
        Path(folder, "fault").touch()
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "raise":
            raise ValueError("seven is no colour")
        elif how in ("user", "everywhere"):
            raise DataError("train.json: expected videos.")
        elif how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif how == "hang":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            time.sleep(600)
        elif how == "exit":
            sys.exit(7)
        elif how == "abort":  # when all is done, as threads of gloo sometimes do
            Finalize(None, os.abort, exitpriority=0)
        elif how == "interrupt":
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(600)
    dist.all_reduce(torch.zeros(1))


def main() -> None:
    """``python -m tests.helpers.jobs HOW FOLDER TIMEOUT``: a job of two processes."""
    how, folder, timeout = sys.argv[1:]
    job = Job(2, timeout=timedelta(seconds=float(timeout)))
    if how == "exchange":
        start_job(exchange, (folder,), job)
    else:
        start_job(misbehave, (how, Folder(folder)), job)


def command(*words: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of ``main``."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "tests.helpers.jobs", *words], environment


if __name__ == "__main__":
    main()
