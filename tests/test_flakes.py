"""The search for tests that do not always end alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import flakes


def test_a_test_that_fails_now_and_then_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = tmp_path / "count"
    module = tmp_path / "test_some.py"
    module.write_text(
        "from pathlib import Path\n"
        f"COUNT = Path({str(count)!r})\n"
        "def test_sound(): pass\n"
        "def test_flaky():\n"
        "    COUNT.write_text(COUNT.read_text() + '.' if COUNT.exists() else '.')\n"
        "    assert len(COUNT.read_text()) != 2\n"
    )
    words = ["--times", "2", "--", f"--rootdir={tmp_path}", str(module)]
    assert flakes.main(words) == 1
    said = capsys.readouterr().out
    assert "test_flaky: failure 1, passed 1" in said
    assert "2 runs of 2 tests: 1 end differently." in said
    assert flakes.main(["--times", "1", *words[2:], "-k", "sound"]) == 0


def test_absent_tests_differ() -> None:
    runs = [{"a": "passed", "b": "passed"}, {"a": "passed"}]
    assert flakes.differing(runs) == {"b": ["passed", "absent"]}


def test_a_run_that_hangs_is_ended_and_shows_where(tmp_path: Path) -> None:
    module = tmp_path / "test_some.py"
    module.write_text("import time\ndef test_waits(): time.sleep(3600)\n")
    words = ["--times", "1", "--limit", "20", "--", f"--rootdir={tmp_path}", str(module)]
    with pytest.raises(SystemExit, match="run 0 hangs: no end in 20 s") as caught:
        flakes.main(words)
    assert "in test_waits" in str(caught.value)
