"""A job of two processes: it ends with its first fault, and opens nothing to other machines."""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from maskfreevis_ext.engine.processes import LOST, Job, _End, is_lost_contact, start_job, verdict
from maskfreevis_ext.errors import ConfigError
from tests.helpers.jobs import command

LIMIT = timedelta(seconds=30)


@pytest.mark.parametrize(
    ("ends", "code", "message"),
    [
        ([_End(0, 0), _End(1, 0)], 0, ""),
        ([_End(0, LOST, "closed"), _End(1, -9)], 1, "Rank 1 was ended by SIGKILL"),
        ([_End(0, -9, was_killed=True), _End(1, -11)], 1, "Rank 1 was ended by SIGSEGV"),
        ([_End(0, LOST, "closed"), _End(1, -40)], 1, "Rank 1 was ended by signal 40"),
        ([_End(0, LOST, "closed"), _End(1, 1, "ValueError: 7")], 1, "Rank 1 failed: ValueError: 7"),
        ([_End(0, 7), _End(1, LOST, "closed")], 1, "Rank 0 failed with exit code 7"),
        (
            [_End(0, LOST, "timed out"), _End(1, -9, was_killed=True)],
            1,
            "Rank 1 did not answer within 30 s (DISTRIBUTED.TIMEOUT)",
        ),
        ([_End(0, LOST, "timed out"), _End(1, LOST, "x")], 1, "Rank 0 lost the others: timed out"),
        ([_End(0, 2, "DataError: a"), _End(1, 2, "DataError: a")], 2, "DataError: a"),
        ([_End(0, LOST, "x"), _End(1, 2, "DataError: a")], 2, "Rank 1: DataError: a"),
        ([_End(0, 130, "Stopped after 3"), _End(1, 130)], 130, "Stopped after 3"),
    ],
)
def test_the_first_fault_is_told_once(ends, code, message):
    got, text = verdict(ends, LIMIT)
    assert got == code
    assert text.startswith(message)
    assert text.count(message) == 1 or not message


def test_a_signal_that_was_passed_on_decides_the_exit_code():
    assert verdict([_End(0, 143, "Stopped"), _End(1, -15)], LIMIT, stopped_by=15) == (
        143,
        "Stopped",
    )


def test_lost_contact_is_known_by_its_cause():
    assert is_lost_contact(RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer"))
    assert not is_lost_contact(RuntimeError("shapes differ"))
    assert not is_lost_contact(ValueError("Timed out waiting"))
    assert not is_lost_contact(None)


@pytest.mark.parametrize("url", ["http://a:1", "tcp://a", "tcp://a:99999", "a:1"])
def test_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="--dist-url"):
        start_job(print, (), Job(2, dist_url=url))


def test_several_machines_need_an_address():
    with pytest.raises(ConfigError, match=r"--dist-url: .* for 2 machines"):
        start_job(print, (), Job(1, machines=2))


def test_job_of_one_process_runs_here():
    seen: list[int] = []
    start_job(seen.append, (os.getpid(),), Job(1))
    assert seen == [os.getpid()]


def _run(folder: Path, how: str, timeout: float) -> subprocess.CompletedProcess:
    words, environment = command(how, str(folder), str(timeout))
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_nothing_listens_outside_the_loopback(tmp_path):
    done = _run(tmp_path, "exchange", 60)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        values, total, on_one, listening = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert [value["rank"] for value in values] == [0, 1]
        assert values[1]["text"] == "é" * 1000
        assert total == 3.0
        assert repr(on_one) == ("[[0, 0.5], [1, nan]]" if rank == 0 else "[]")
        assert listening
        assert set(listening) == {"0100007F"}  # 127.0.0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "timeout", "code", "message"),
    [
        ("kill", 600, 1, "Rank 1 was ended by SIGKILL"),
        ("raise", 600, 1, "Rank 1 failed: ValueError: seven is no colour"),
        ("user", 600, 2, "Rank 1: DataError: train.json: expected videos."),
        ("abort", 600, 0, ""),
        ("hang", 5, 1, "Rank 1 did not answer within 5 s (DISTRIBUTED.TIMEOUT)"),
        ("stop", 5, 1, "Rank 1 did not answer within 5 s (DISTRIBUTED.TIMEOUT)"),
    ],
)
def test_job_ends_with_its_first_fault_and_leaves_no_process(tmp_path, how, timeout, code, message):
    began = time.time()
    done = _run(tmp_path, how, timeout)
    ended = time.time()
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert done.stderr.count("Traceback") == (how == "raise")
    fault = (tmp_path / "fault").stat().st_mtime
    wait = timeout if how in ("hang", "stop") else 0
    # 10 s; three interpreters end much faster than they start, also on a machine that is so busy
    # that their start took longer than that.
    assert ended - fault < wait + max(10, fault - began)
    for rank in (0, 1):
        assert not Path(f"/proc/{(tmp_path / f'pid{rank}').read_text()}").exists()
