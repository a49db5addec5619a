"""Worker processes that are stopped, killed, hang or raise: one clear error, and no orphans."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch.utils.data

from maskfreevis_ext.data import build_train_loader
from maskfreevis_ext.data.worker_notes import WorkerNotes
from maskfreevis_ext.data.worker_watch import WorkerWatch, _watches
from maskfreevis_ext.errors import DataError
from tests.helpers.videos import data_cfg, plain_content, unique_name, write_frames, write_json
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")

_TIMEOUT = 2  #: Seconds, from when the clock runs.
#: Of the note of a worker that reads a video, or has read it.
_FRAMES = r"\.png (\(video |and further frames of video )"


class _Clock:
    """Lets DATALOADER.TIMEOUT count from when a condition holds, not while the workers start."""

    def __init__(self):
        self.is_running = lambda: False

    def timer(self):
        clock = self

        class Timer(threading.Timer):
            def run(self):
                while not clock.is_running() and not self.finished.wait(0.02):
                    pass
                super().run()

        return Timer


@pytest.fixture
def clock(monkeypatch):
    """Stands still until a test lets it run."""
    clock = _Clock()
    monkeypatch.setattr("maskfreevis_ext.data.worker_watch.threading.Timer", clock.timer())
    return clock


@pytest.fixture
def loader(tmp_path, clock):
    """Builds a loader of two workers."""

    def build(timeout=_TIMEOUT):
        content, name = plain_content((4, 3)), unique_name()
        entry = [name, write_json(tmp_path, content), write_frames(tmp_path, content)]
        return build_train_loader(
            data_cfg(
                *("INPUT.DATASETS", [entry], "DATASETS.TRAIN", (name,)),
                *("DATALOADER.NUM_WORKERS", 2, "DATALOADER.TIMEOUT", timeout),
            )
        )

    return build


def _children():
    path = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    with open(path, encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def _is_there(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class _Started:
    """A pass over a loader with one batch read of each worker, and its worker processes."""

    def __init__(self, loader, clock):
        before = set(_children())
        self.batches = iter(loader)
        for _ in range(2):  # they come from the workers in turn
            next(self.batches)
        self.pids = [pid for pid in _children() if pid not in before]
        assert len(self.pids) == 2
        clock.is_running = lambda: True

    def read_on(self):
        """Seconds until the error, and its message."""
        start = time.perf_counter()
        with pytest.raises(DataError) as error:
            for _ in self.batches:
                pass
        return time.perf_counter() - start, str(error.value)

    def assert_gone(self):
        assert wait_until(lambda: not any(map(_is_there, self.pids))), "a worker is still there"


def test_stopped_worker_ends_the_run_after_the_timeout(loader, clock):
    run = _Started(loader(), clock)
    os.kill(run.pids[0], signal.SIGSTOP)
    seconds, message = run.read_on()
    assert "gave no batch for 2 seconds (DATALOADER.TIMEOUT): worker 0" in message
    assert f"process {run.pids[0]}, which is stopped" in message
    assert re.search(_FRAMES, message), message
    assert _TIMEOUT <= seconds < _TIMEOUT + 60
    run.assert_gone()


def test_both_stopped(loader, clock):
    run = _Started(loader(), clock)
    for pid in run.pids:
        os.kill(pid, signal.SIGSTOP)
    _, message = run.read_on()
    assert "worker 0" in message
    assert "worker 1" in message
    run.assert_gone()


def _kill_and_sleep(pid):
    os.kill(pid, signal.SIGKILL)
    time.sleep(300)


def test_killed_worker_is_named_at_once(loader, clock):
    run = _Started(loader(timeout=600), clock)
    start = time.perf_counter()
    told = rf"A worker .* died: worker 1 .*ended by SIGKILL.*{_FRAMES}.*NUM_WORKERS"
    with pytest.raises(DataError, match=told):
        _kill_and_sleep(run.pids[1])  # the error comes wherever the main process is
    assert time.perf_counter() - start < 120
    run.assert_gone()


def test_hanging_worker_is_named_with_its_sample_and_file(loader, clock, monkeypatch):
    def hang(path, *args, **kwargs):
        time.sleep(600)

    monkeypatch.setattr("maskfreevis_ext.data.images.read_frame", hang)
    batches = loader()
    clock.is_running = lambda: all(", frame " in batches._notes.read(worker) for worker in (0, 1))
    with pytest.raises(DataError) as error:
        next(iter(batches))  # the workers are forked with the hanging reader
    message = str(error.value)
    assert "DATALOADER.TIMEOUT" in message
    assert "worker 0" in message
    assert ".png (video " in message
    assert ", frame " in message


@pytest.mark.parametrize("kind", [KeyError, MemoryError, RuntimeError])
def test_worker_that_raises_is_named_with_its_sample_and_file(loader, monkeypatch, kind, caplog):
    def fail(path, *args, **kwargs):
        raise kind("of the reader")

    monkeypatch.setattr("maskfreevis_ext.data.images.read_frame", fail)
    with caplog.at_level("DEBUG"), pytest.raises(DataError) as error:
        next(iter(loader()))
    message = str(error.value)
    assert message.startswith(f"The data loader failed with {kind.__name__}")
    assert "of the reader" in message
    assert "worker 0 (process " in message
    assert ".png (video " in message
    assert "Traceback" not in message
    assert "Traceback" in str(error.value.__cause__)
    traces = [record for record in caplog.records if "Traceback" in record.getMessage()]
    assert [record.levelname for record in traces] == ["DEBUG"]


def test_pass_that_is_dropped_leaves_no_process(loader, clock, monkeypatch):
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 600.0)
    run = _Started(loader(timeout=600), clock)
    os.kill(run.pids[0], signal.SIGSTOP)
    start = time.perf_counter()
    run.batches.close()
    run.assert_gone()
    assert time.perf_counter() - start < 120  # not the 600 s that torch gives a worker to end


def test_worker_that_is_killed_while_it_asks_whether_to_end_stops_nobody(loader, monkeypatch):
    end = WorkerWatch.end

    def end_in_between(watch):
        assert watch._done._cond._lock.acquire(timeout=60)  # as a worker does, which dies then
        end(watch)

    monkeypatch.setattr(WorkerWatch, "end", end_in_between)
    batches = iter(loader(timeout=60))
    next(batches)
    batches.close()  # torch sets the event; without care it waits here for ever


def test_copy_of_a_pass_in_another_process_ends_nobody(loader, clock):
    run = _Started(loader(timeout=600), clock)
    child = os.fork()
    if child == 0:
        try:
            for watch in list(_watches):
                watch.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert all(map(_is_there, run.pids))
    next(run.batches)
    run.batches.close()
    run.assert_gone()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["SIGSTOP", "SIGKILL", "exit"])
def test_command_ends_with_one_line_and_no_orphans(tmp_path, fault):
    """A whole process, which also ends while a worker is stopped and for another reason."""
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        from maskfreevis_ext.data import build_train_loader
        from maskfreevis_ext.data.worker_watch import _watches
        from maskfreevis_ext.engine.user_errors import exit_on_user_error
        from maskfreevis_ext.errors import DataError
        from tests.helpers.videos import data_cfg, plain_content, write_frames, write_json

        def main():
            base, content = Path({str(tmp_path)!r}), plain_content((4, 3))
            entry = ["v", write_json(base, content), write_frames(base, content)]
            cfg = data_cfg("INPUT.DATASETS", [entry], "DATASETS.TRAIN", ("v",),
                           "DATALOADER.NUM_WORKERS", 2, "DATALOADER.TIMEOUT", 600)
            batches = iter(build_train_loader(cfg))
            next(batches)
            for watch in _watches:
                watch._timeout = 3  # from here on; the start of the workers may be slow
            with open(f"/proc/{{os.getpid()}}/task/{{os.getpid()}}/children") as file:
                pids = file.read().split()
            print(*pids, flush=True)
            fault = {fault!r}
            os.kill(int(pids[0]), signal.SIGSTOP if fault == "exit" else signal.Signals[fault])
            if fault == "exit":
                raise DataError("another reason")
            for _ in batches:
                pass

        exit_on_user_error(main)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "Error" in line]
    assert len(lines) == 1
    expected = {"SIGSTOP": "which is stopped", "SIGKILL": "SIGKILL", "exit": "another reason"}
    assert expected[fault] in lines[0]
    assert not any(_is_there(int(pid)) for pid in done.stdout.split() if pid.isdecimal())


class _Process:
    """A worker whose end can be seen a moment after its connections broke."""

    pid = None

    def __init__(self):
        self.sentinel, self._end = os.pipe()
        self.exitcode = None

    def die(self):
        time.sleep(0.2)
        os.close(self._end)

    def join(self, timeout):
        time.sleep(0.2)
        self.exitcode = -signal.SIGKILL


def test_broken_connection_is_explained_by_the_death_that_follows():
    process = _Process()
    watch = WorkerWatch([process], WorkerNotes(1), timeout=0)
    killer = threading.Thread(target=process.die)
    killer.start()
    fault = watch.explain(ConnectionResetError(104, "Connection reset by peer"))
    killer.join()
    os.close(process.sentinel)
    _watches.discard(watch)
    assert "worker 0" in str(fault)
    assert "SIGKILL" in str(fault)
