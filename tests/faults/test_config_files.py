"""Config files that try to run code."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskfreevis_ext.config import load_config
from maskfreevis_ext.errors import ConfigError
from tests.helpers.training import CONFIG

TAGS = [
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]",
    "!!python/object/new:subprocess.Popen [[touch, '{mark}']]",
    "!!python/object:collections.OrderedDict {{}}",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1, 2]",
    "!custom {{a: 1}}",
]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("in_base", [False, True])
def test_tag_is_refused_before_anything_runs(tmp_path: Path, tag: str, in_base: bool):
    mark = tmp_path / "ran"
    bad = tmp_path / "bad.yaml"
    bad.write_text("SEED: 1\nOUTPUT_DIR: " + tag.format(mark=mark) + "\n")
    path = bad
    if in_base:
        path = tmp_path / "leaf.yaml"
        path.write_text("_BASE_: bad.yaml\n")
    with pytest.raises(ConfigError) as error:
        load_config(str(path))
    assert not mark.exists()
    assert "bad.yaml" in str(error.value)
    assert "line 2" in str(error.value)


@pytest.mark.parametrize(
    "value",
    ["__import__('os').system('touch {mark}')", "!!python/object/apply:os.system ['touch {mark}']"],
)
def test_override_is_text_and_nothing_else(tmp_path: Path, value: str):
    mark = tmp_path / "ran"
    value = value.format(mark=mark)
    assert load_config(CONFIG, ["OUTPUT_DIR", value]).OUTPUT_DIR == value
    with pytest.raises(ConfigError):
        load_config(CONFIG, ["SEED", value])
    assert not mark.exists()
