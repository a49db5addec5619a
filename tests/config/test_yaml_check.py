"""Config files that are not what they should be."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable

import pytest

from maskfreevis_ext.config import load_config
from maskfreevis_ext.config.yaml_check import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_FILES,
    check_yaml_file,
    read_plain_yaml,
)
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


def _fan(folder, width: int, depth: int) -> str:
    """Each file names the next one several times: width ** depth readings."""
    for i in range(depth):
        _write(folder, f"f{i}.yaml", f"_BASE_: [{', '.join([f'f{i + 1}.yaml'] * width)}]\n")
    _write(folder, f"f{depth}.yaml", f"_BASE_: {CONFIG}\n")
    return str(folder / "f0.yaml")


@pytest.mark.parametrize(("width", "depth"), [(10, 10), (2, 30), (5_000, 1), (65, 1)])
def test_fan_of_bases_ends(tmp_path, width, depth):
    path = _fan(tmp_path, width, depth)
    _ends_at_once(lambda: _refuse(path, "at most"))


def test_64_bases_are_taken(tmp_path):
    _write(tmp_path, "one.yaml", "VERSION: 2\nSEED: 3\n")
    leaf = _write(tmp_path, "leaf.yaml", f"_BASE_: [{', '.join(['one.yaml'] * MAX_FILES)}]\n")
    assert len(check_yaml_file(leaf)) == 1 + MAX_FILES


def test_bases_are_limited_together(tmp_path):
    for i in range(40):
        _write(tmp_path, f"b{i}.yaml", "SEED: 3\n" + "#" * (MAX_BYTES // 32) + "\n")
    names = ", ".join(f"b{i}.yaml" for i in range(40))
    leaf = _write(tmp_path, "leaf.yaml", f"_BASE_: [{names}]\n")
    _ends_at_once(lambda: _refuse(leaf, f"at most {MAX_BYTES} bytes together"))


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
        ("a: " + "[" * 5000 + "]" * 5000 + "\n", ["levels"]),
        ("a: " + "[" * 100 + "]" * 100 + "\n", ["levels"]),
        ("a: &a [*a]\n", ["line 1", "holds itself"]),
        ("a: &a {b: {<<: *a}}\n", ["line 1", "holds itself"]),
        ("SEED: " + "9" * 100_000 + "\n", ["line 1", "at most 100 digits", "got 100000"]),
        ("SEED: -1" + ":59" * 30_000 + "\n", ["line 1", "at most 100 digits"]),
        ("OUTPUT_DIR: '" + "x" * 20_000 + "'\n", ["line 1", "at most 16384 characters"]),
        ("SEED: !!int 'one'\n", ["line 1", "tag", "int"]),
        ("SEED: !!int ''\n", ["line 1", "tag"]),
        ("SEED: !!bool 3\n", ["line 1", "tag"]),
        ("SEED: !!binary aGk=\n", ["line 1", "tag"]),
        ("SEED: !!set {a, b}\n", ["line 1", "tag"]),
        ("SEED: 2020-13-77\n", ["month"]),
        ('_BASE_: "a\\0.yaml"\n', ["line 1", "null character"]),
        ('MODEL: {WEIGHTS: "a\\0.pth"}\n', ["line 1", "null character"]),
        ("? [1]\n: 2\n", ["line 1", "unhashable"]),
        ("<<: 3\n", ["line 1", "merging"]),
        ("SEED: =\n", ["line 1"]),
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


def _ends_at_once(work: Callable[[], object], megabytes: float = 200) -> None:
    """It takes less than a second of processor time, and less than so much memory."""
    start = time.process_time()
    work()
    assert time.process_time() - start < 1.0
    tracemalloc.start()  # apart: it makes everything five times slower
    try:
        work()
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        tracemalloc.stop()


def _refuse(path: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load_config(path)


def _bomb(merge: bool, width: int = 10, depth: int = 12) -> str:
    first = "{k0: 1, k1: 2, k2: 3}" if merge else "[1, 1, 1]"
    lines = [f"a0: &a0 {first}"]
    for i in range(1, depth):
        entries = ", ".join([f"*a{i - 1}"] * width)
        lines.append(f"a{i}: &a{i} " + (f"{{<<: [{entries}]}}" if merge else f"[{entries}]"))
    return "\n".join(lines)


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(("width", "depth"), [(10, 12), (2, 30), (300, 3)])
def test_aliases_cannot_blow_a_file_up(tmp_path, merge, width, depth):
    path = _write(tmp_path, "bomb.yaml", _bomb(merge, width, depth))
    _ends_at_once(lambda: _refuse(path, r"bomb\.yaml: expected at most"))


def test_bomb_in_a_base_is_found(tmp_path):
    _write(tmp_path, "bomb.yaml", _bomb(merge=True))
    leaf = _write(tmp_path, "leaf.yaml", "_BASE_: bomb.yaml\n")
    _ends_at_once(lambda: _refuse(leaf, r"bomb\.yaml .*leaf\.yaml.*at most"))


def test_aliases_and_merge_keys_of_a_usual_file_work(tmp_path):
    text = """
    a: &a {x: 1, y: [1.5, null, yes]}
    b: {<<: *a, z: *a}
    c: "12"
    d: !!str 12
    """
    assert read_plain_yaml(text, "it")["b"] == {
        "x": 1,
        "y": [1.5, None, True],
        "z": {"x": 1, "y": [1.5, None, True]},
    }
    assert read_plain_yaml("", "it") is None


@pytest.mark.parametrize(
    "text",
    [
        "- 1\n" * (MAX_BYTES // 4),
        "a: [" + "1," * (MAX_BYTES // 3) + "]",
        "#" * MAX_BYTES,
        "9" * 10**6,
    ],
)
def test_large_texts_end_at_once(text):
    def read() -> None:
        with contextlib.suppress(ConfigError):
            read_plain_yaml(text, "it")

    _ends_at_once(read)
