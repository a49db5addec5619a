"""Checkpoints that are damaged on the disk, and processes that are killed while they save."""

from __future__ import annotations

import os
import random
from pathlib import Path

import torch

from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.errors import CheckpointError
from tests.faults.attack.cases import attack
from tests.faults.test_checkpoint_writes import kill_writer, resume_checkpoint

_SAVED = 3


class _Training(torch.nn.Module):
    """A model, with an optimizer that has a state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(40, 50)
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=0.0)

    def set(self, value: float) -> None:
        """Fill the weights and the moments of the optimizer with a value."""
        self(torch.ones(1, 40)).sum().backward()
        self.optimizer.step()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(value)
                self.optimizer.state[parameter]["exp_avg"].fill_(value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        return self.layer(x)

    def holds(self, value: float) -> bool:
        """Whether weights and moments have this value everywhere."""
        states = [self.optimizer.state[p]["exp_avg"] for p in self.parameters()]
        return all(bool((tensor == value).all()) for tensor in [*self.parameters(), *states])


def _checkpointer(folder: Path) -> tuple[_Training, SafeCheckpointer]:
    training = _Training()
    return training, SafeCheckpointer(training, str(folder), optimizer=training.optimizer)


def _save(folder: Path) -> list[Path]:
    """Save some checkpoints; returns the files, the oldest first."""
    paths = []
    for number in range(1, _SAVED + 1):
        training, checkpointer = _checkpointer(folder)
        training.set(number)
        checkpointer.save(f"model_{number:07d}", iteration=number)
        paths.append(folder / f"model_{number:07d}.pth")
        os.utime(paths[-1], (number, number))
    return paths


def _damage(path: Path, rng: random.Random, kind: int) -> str:
    """Damage a file; says how."""
    data = path.read_bytes()
    if kind < 10:
        path.write_bytes(data[: len(data) * kind // 10])
        return f"cut to {10 * kind} %"
    if kind < 14:
        place, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        return f"bit {bit} of byte {place} flipped"
    if kind == 14:
        place = rng.randrange(len(data))
        path.write_bytes(
            data[:place] + bytes(len(data[place : place + 4096])) + data[place + 4096 :]
        )
        return f"4 KiB of zeros at {place}"
    if kind == 15:
        path.write_bytes(bytes(len(data)))
        return "zeros"
    if kind == 16:
        path.write_bytes(b"<!doctype html><html></html>")
        return "a web page"
    path.unlink()
    return "removed"


@attack(
    "the newest 1 to 3 checkpoints damaged: cut at every 10 %, bits flipped, zeros, removed",
    "`--resume` takes the newest whole one, complete; without any, one CheckpointError",
    count=540,
    quick=36,
    limit=60,
)
def damaged_checkpoints(index: int, rng: random.Random, folder: Path) -> str | None:
    """A folder of three checkpoints of which some are damaged."""
    paths = _save(folder)
    number = 1 + index // 18 % _SAVED
    told = [_damage(path, rng, index % 18) for path in paths[-number:]]
    training, checkpointer = _checkpointer(folder)
    try:
        found = checkpointer.resume_or_load("", resume=True)
    except CheckpointError:
        return None if number == _SAVED else f"refused the whole ones: {told}"
    if not checkpointer.resumed:
        are_gone = index % 18 == 17 and number == _SAVED
        return None if are_gone else f"started from scratch: {told}"
    iteration = found.get("iteration")
    if iteration not in range(_SAVED - number, _SAVED + 1) or not training.holds(iteration):
        return f"resumed at {iteration} with other values: {told}"
    return None


@attack(
    "files beside the checkpoints cut, garbled or removed",
    "`--resume` takes a whole checkpoint, complete",
    count=180,
    quick=12,
    limit=60,
)
def damaged_manifest(index: int, rng: random.Random, folder: Path) -> str | None:
    """``last_checkpoint`` and every other small file that is not a checkpoint."""
    _save(folder)
    others = sorted(path for path in folder.iterdir() if path.suffix != ".pth")
    told = [f"{path.name} {_damage(path, rng, index % 18)}" for path in rng.sample(others, 1)]
    training, checkpointer = _checkpointer(folder)
    found = checkpointer.resume_or_load("", resume=True)
    iteration = found.get("iteration")
    if not checkpointer.resumed or not training.holds(iteration):
        return f"resumed at {iteration} with other values: {told}"
    return None


@attack(
    "one bit of a weights file flipped, then loaded by MODEL.WEIGHTS",
    "refused, or exactly the weights that were saved",
    count=400,
    quick=20,
    limit=60,
)
def flipped_weights(index: int, rng: random.Random, folder: Path) -> str | None:
    """A file of weights alone, copied to another folder."""
    training, checkpointer = _checkpointer(folder)
    training.set(0.5)
    checkpointer.save("model_final", iteration=1)
    path = folder / "other" / "weights.pth"
    path.parent.mkdir()
    path.write_bytes((folder / "model_final.pth").read_bytes())
    told = _damage(path, rng, 10)
    other = _Training()
    try:
        SafeCheckpointer(other).load(str(path), checkpointables=[])
    except CheckpointError:
        return None
    is_same = all(bool((p == 0.5).all()) for p in other.parameters())
    return None if is_same else f"other weights are loaded: {told}"


@attack(
    "`kill -9` while saving, without a pause between checkpoints",
    "the last one reported, or a newer one, is whole",
    count=40,
    quick=1,  # more of them are in tests/faults/test_checkpoint_writes.py
    limit=300,
)
def kill_saving(index: int, rng: random.Random, folder: Path) -> str | None:
    """One file written again and again, or three in turn."""
    names = rng.choice(["model_last", "model_a,model_b,model_c"])
    newest = kill_writer(folder, names, rng.uniform(0.0, 0.15))
    resumed = resume_checkpoint(folder)
    return None if resumed >= newest else f"resumed at {resumed}, {newest} was reported"
