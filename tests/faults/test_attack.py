"""The attacks themselves: some cases of each hold, and losses, deaths and hangs are noticed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.attack import run
from tests.faults.attack.cases import Attack, load_attacks
from tests.faults.attack.table import list_of_lost, markdown_table

_ATTACKS = load_attacks()


@pytest.mark.slow
@pytest.mark.parametrize("name", _ATTACKS)
def test_a_few_cases_hold(name: str) -> None:
    tally = run.Tally(_ATTACKS[name], _ATTACKS[name].quick)
    run.run_attack(tally)
    assert tally.tried == _ATTACKS[name].quick
    assert not tally.lost, list_of_lost([tally], 0)


def test_full_runs_are_as_long_as_promised() -> None:
    counts = {name: each.count for name, each in _ATTACKS.items()}
    assert counts["kill-training"] >= 50
    assert counts["kill-saving"] >= 40
    assert counts["annotations"] >= 10_000
    assert counts["malicious-weights"] >= 20 * 5


@pytest.mark.slow
def test_losses_deaths_and_hangs_are_counted_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "bad.py"
    module.write_text(
        "import os, signal, time\n"
        "from tests.faults.attack import cases\n"
        "def case(index, rng, folder):\n"
        "    print('not part of the report')\n"
        "    if index == 1: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if index == 2: time.sleep(60)\n"
        "    if index == 3: raise TypeError('foreign')\n"
        "    if index == 4: return 'said so'\n"
        "    if index == 5: os._exit(3)\n"
        "bad = cases.Attack('bad', 'bad cases', 'nothing', 7, 7, 2.0, case)\n"
        "cases.ATTACKS['bad'] = bad\n"
        "import tests.faults.attack.child as child\n"
        "child.load_attacks = lambda: cases.ATTACKS\n"
    )
    monkeypatch.setattr(run, "MODULE", ["-c", "import bad; bad.child.main()"])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    bad = Attack("bad", "bad cases", "nothing", 7, 7, 6.0, lambda *_: None)
    tally = run.Tally(bad, 7)
    run.run_attack(tally)
    assert tally.tried == 7
    assert set(tally.lost) == {1, 2, 3, 4, 5}
    assert "SIGSEGV" in tally.lost[1]
    assert "hung" in tally.lost[2]
    assert "TypeError" in tally.lost[3]
    assert tally.lost[4] == "said so"
    assert "exit code 3" in tally.lost[5]
    table = markdown_table([tally])
    assert "| 7 | 2 | 5 |" in table
    assert "--only bad --seed 0 --case 1" in list_of_lost([tally], 0)
    late = run.Tally(bad, 7)
    run.run_attack(late, deadline=time.monotonic())
    assert late.tried == 0
