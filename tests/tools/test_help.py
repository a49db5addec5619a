"""``--help`` of every tool shows commands that its own command line takes."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from maskfreevis_ext.config import default_config, lookup

ROOT = Path(__file__).parents[2]
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py") if path.name != "benchmark.py")


def help_of(tool: str, capsys) -> tuple[dict, str]:
    """Names of a tool and what its ``--help`` prints."""
    names = runpy.run_path(str(ROOT / "tools" / tool))
    with pytest.raises(SystemExit) as stop:
        names["main"](["--help"])
    assert stop.value.code == 0
    return names, capsys.readouterr().out


def commands(text: str) -> list[list[str]]:
    """The words of each example command, as a shell splits them."""
    joined = text.replace("\\\n", " ")
    lines = re.findall(r"^ +(python tools/.*)$", joined, re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("tool", TOOLS)
def test_examples_can_be_pasted(tool, capsys):
    names, text = help_of(tool, capsys)

    examples = commands(text)

    assert examples
    for _, script, *arguments in examples:
        assert script == f"tools/{tool}"
        args = names["parse_args"](arguments)  # stops the test where an option is not known
        if getattr(args, "config_file", None):
            assert (ROOT / args.config_file).is_file()
        overrides = getattr(args, "opts", None) or []
        assert len(overrides) % 2 == 0
        # What stands behind the backslash of a line break, or no backslash, would be lost.
        assert not any(word.startswith("-") or word == "\\" for word in overrides)


@pytest.mark.parametrize("tool", TOOLS)
def test_config_keys_of_the_help_exist(tool, capsys):
    _, text = help_of(tool, capsys)

    keys = set(re.findall(r"\b[A-Z]+(?:\.[A-Z][A-Z0-9_]*)+\b", text))
    for key in keys - {"PATH.KEY"}:  # Detectron2's own help of the overrides says so
        lookup(default_config(), key)  # stops the test where there is no such key


@pytest.mark.parametrize("tool", TOOLS)
def test_every_broken_line_of_an_example_ends_with_a_backslash(tool, capsys):
    _, text = help_of(tool, capsys)

    cut = re.search(r"^    python tools/(?:.*\\\n)*.*[^\\\n]\n        \S", text, re.MULTILINE)

    assert cut is None, cut[0]


#: Options that mean the same wherever they stand, and what their help says.
COMMON = {
    "--overwrite": "replace files that were not made by such a tool",
    "--device": '"cpu" or "cuda"',
    "--opts": "config overrides",
}


@pytest.mark.parametrize("tool", sorted({*TOOLS} - {"experiment.py", "train_net.py"}))
def test_common_options_say_the_same_in_each_tool(tool, capsys):
    _, text = help_of(tool, capsys)
    text = " ".join(text.split())

    for option, said in COMMON.items():
        assert (f"[{option}" in text) == (said in text), option


@pytest.mark.parametrize("tool", sorted({*TOOLS} - {"experiment.py", "train_net.py"}))
def test_interrupt_ends_with_one_line_and_code_130(tool, capsys, monkeypatch):
    names, text = help_of(tool, capsys)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(names["main"].__globals__, "run", stop)
    with pytest.raises(SystemExit) as end:
        names["main"](commands(text)[0][2:])

    assert end.value.code == 130
    assert capsys.readouterr().err.split() == ["Interrupted."]
