"""Config files that are not what they should be."""

from __future__ import annotations

import time

import pytest

from maskfreevis_ext.config import load_config
from maskfreevis_ext.config.yaml_check import MAX_BYTES, MAX_DEPTH, check_yaml_file
from maskfreevis_ext.errors import ConfigError
from tests.helpers.training import CONFIG


def _write(folder, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_base_files_are_followed(tmp_path):
    root = _write(tmp_path, "a/root.yaml", "SEED: 1\n")
    other = _write(tmp_path, "a/other.yaml", "SEED: 2\n")
    bases = f"[{CONFIG}, ../a/root.yaml, ../a/other.yaml]"
    leaf = _write(tmp_path, "b/leaf.yaml", f"_BASE_: {bases}\n")
    assert check_yaml_file(leaf) == [leaf, CONFIG, root, other]
    assert load_config(leaf).SEED == 2


def test_same_base_twice_is_no_circle(tmp_path):
    _write(tmp_path, "root.yaml", f"_BASE_: {CONFIG}\nSEED: 3\n")
    _write(tmp_path, "a.yaml", "_BASE_: root.yaml\n")
    _write(tmp_path, "b.yaml", "_BASE_: root.yaml\n")
    leaf = _write(tmp_path, "leaf.yaml", "_BASE_: [a.yaml, b.yaml]\n")
    assert load_config(leaf).SEED == 3


@pytest.mark.parametrize("length", [1, 2, 3])
def test_circle_of_bases_is_named(tmp_path, length):
    for i in range(length):
        _write(tmp_path, f"c{i}.yaml", f"_BASE_: c{(i + 1) % length}.yaml\n")
    with pytest.raises(ConfigError, match="circle") as error:
        load_config(str(tmp_path / "c0.yaml"))
    for i in range(length):
        assert f"c{i}.yaml" in str(error.value)


def test_endless_chain_of_bases_ends(tmp_path):
    for i in range(MAX_DEPTH + 2):
        _write(tmp_path, f"c{i}.yaml", f"_BASE_: c{i + 1}.yaml\n")
    with pytest.raises(ConfigError, match=f"at most {MAX_DEPTH}"):
        load_config(str(tmp_path / "c0.yaml"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("SEED: [1\n", ["not valid YAML"]),
        ("- 1\n- 2\n", ["keys and values", "list"]),
        ("hostname\n", ["keys and values", "str"]),
        ("", ["keys and values", "NoneType"]),
        ("_BASE_: 3\n", ["_BASE_", "3"]),
        ("_BASE_: https://example.org/a.yaml\n", ["https://example.org/a.yaml", "this machine"]),
        ("_BASE_: gone.yaml\n", ["gone.yaml", "_BASE_ of", "does not exist"]),
        ("a: " + "[" * 5000 + "]" * 5000 + "\n", ["nested too deeply"]),
        ("a: " + "[" * 100 + "]" * 100 + "\n", ["levels"]),
    ],
)
def test_file_that_is_no_config_is_named(tmp_path, text, parts):
    path = _write(tmp_path, "bad.yaml", text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    for part in ["bad.yaml", *parts]:
        assert part in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml.*does not exist"):
        load_config(str(tmp_path / "no.yaml"))


def test_file_that_is_no_text(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00SEED")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(str(path))


def test_large_file(tmp_path):
    path = _write(tmp_path, "large.yaml", "#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match=str(MAX_BYTES)):
        load_config(path)


def test_aliases_cannot_blow_a_file_up(tmp_path):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path = _write(tmp_path, "bomb.yaml", "\n".join(lines))
    start = time.perf_counter()
    with pytest.raises(ConfigError, match="at most"):
        load_config(path)
    assert time.perf_counter() - start < 1.0
