"""Config files that would take all memory, never end, or run code."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from maskfreevis_ext.config import load_config
from maskfreevis_ext.errors import ConfigError
from tests.faults.attack.cases import attack

_SECONDS = 1.0  # of the processor, until a file is refused
_LONGEST = 2000  # characters of a message
_TAGS = (
    *("!!python/object/apply:os.system ['touch {mark}']", "!!python/name:os.system"),
    *("!!python/object/new:subprocess.Popen [[touch, '{mark}']]", "!!python/module:os"),
    *('!!python/object/apply:eval [\'open("{mark}", "w")\']', "!other {{a: 1}}"),
)


def _aliases(rng: random.Random, folder: Path) -> str:
    """Lists of lists of one list: nine levels of nine, or more."""
    wide, deep = rng.randint(5, 12), rng.randint(8, 28)
    lines = ["a0: &a0 [x, x, x]"]
    for level in range(1, deep):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * wide)}]")
    return "\n".join(lines)


def _merge_keys(rng: random.Random, folder: Path) -> str:
    """Mappings that merge the mapping before them many times."""
    wide, deep = rng.randint(5, 12), rng.randint(8, 28)
    lines = ["a0: &a0 {x: 1, y: 2, z: 3}"]
    for level in range(1, deep):
        many = ", ".join([f"*a{level - 1}"] * wide)
        lines.append(f"a{level}: &a{level} {{<<: [{many}], k{level}: 1}}")
    return "\n".join(lines)


def _fan(rng: random.Random, folder: Path) -> str:
    """Every base names several bases: 10 files, 5 ** 10 ways through them."""
    deep, wide = rng.randint(6, 25), rng.randint(3, 8)
    for level in range(deep):
        bases = [f"b{level + 1}.yaml"] * wide if level + 1 < deep else []
        (folder / f"b{level}.yaml").write_text(
            f"_BASE_: {bases}\nSEED: 1\n" if bases else "SEED: 1"
        )
    return "_BASE_: b0.yaml"


def _circle(rng: random.Random, folder: Path) -> str:
    length = rng.randint(1, 40)
    for i in range(length):
        (folder / f"b{i}.yaml").write_text(f"_BASE_: b{(i + 1) % length}.yaml\n")
    return "_BASE_: b0.yaml"


def _long_chain(rng: random.Random, folder: Path) -> str:
    length = rng.choice([40, 300, 2000])
    for i in range(length):
        (folder / f"b{i}.yaml").write_text(f"_BASE_: b{i + 1}.yaml\n")
    (folder / f"b{length}.yaml").write_text("SEED: 1\n")
    return "_BASE_: b0.yaml"


def _deep(rng: random.Random, folder: Path) -> str:
    depth = rng.choice([50, 3000, 60_000])
    left, right = rng.choice(["[]", ("{a: ", "}")])
    return "SEED: " + left * depth + "1" + right * depth


def _number(rng: random.Random, folder: Path) -> str:
    digits = rng.choice([5000, 100_000, 10**6])
    key = rng.choice(["SEED", "SOLVER: {BASE_LR", "MODEL: {PIXEL_MEAN"])
    text = rng.choice(["9", "1_", "0x1", "7:5"[::-1]]) * (digits // 2)
    return f"{key}: {text}{'}' if '{' in key else ''}"


def _tag(rng: random.Random, folder: Path) -> str:
    return "SEED: 1\nOUTPUT_DIR: " + rng.choice(_TAGS).format(mark=folder / "ran")


def _address(rng: random.Random, folder: Path) -> str:
    return (
        f"_BASE_: {rng.choice(['http://127.0.0.1:9/x.yaml', 'file:///etc/hostname', '/dev/zero'])}"
    )


def _not_text(rng: random.Random, folder: Path) -> bytes:
    return rng.choice(
        [
            bytes(rng.randrange(256) for _ in range(200)),
            b"\xff\xfe" + "SEED: 1".encode("utf-16-le"),
            b"SEED: 1\0\0",
            b"- a\n- b\n",
            b"\x7fELF" + bytes(100),
            b"SEED: [1\n",
            b"<<: 5\n",
            b"? [a, b]\n: 1\n",
        ]
    )


_KINDS: tuple[Callable[[random.Random, Path], str | bytes], ...] = (
    *(_aliases, _merge_keys, _fan, _circle, _long_chain, _deep, _number, _tag, _address, _not_text),
)


@attack(
    "YAML: alias and merge-key bombs, _BASE_ fans and circles, tags, 10⁶ digits",
    "refused in 1 s of processor time by one ConfigError with the file; nothing runs",
    count=600,
    quick=30,
    limit=20,
)
def yaml(index: int, rng: random.Random, folder: Path) -> str | None:
    """A config file of one of ten kinds, named directly or as a base."""
    kind = _KINDS[index % len(_KINDS)]
    text = kind(rng, folder)
    path = folder / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if rng.random() < 0.3:
        path = folder / "leaf.yaml"
        path.write_text("_BASE_: bad.yaml\n")
    before = time.process_time()
    try:
        load_config(str(path))
    except ConfigError as error:
        fault = "" if str(folder) in str(error) else f"a message without the file: {error}"
        if len(str(error)) > _LONGEST:
            fault = f"a message of {len(str(error))} characters"
    else:
        fault = "accepted"
    taken = time.process_time() - before
    if os.path.exists(folder / "ran"):
        fault = "code ran"
    if not fault and taken > _SECONDS:
        fault = f"took {taken:.1f} s"
    return f"{kind.__name__[1:]}: {fault}" if fault else None
