"""Weights files that try to run code, through everything that loads weights."""

from __future__ import annotations

import functools
import io
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from maskfreevis_ext import build_predictor
from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.engine.convert_weights import read_weights
from maskfreevis_ext.errors import MaskFreeError
from maskfreevis_ext.weights_files import read_weights_file
from tests.faults.attack.cases import attack
from tests.helpers.configs import tiny_cfg
from tests.helpers.payloads import as_torch_file, payloads_of

_PAYLOADS = sorted(payloads_of("x"))
_ENDINGS = (".pkl", ".pth", ".pt", ".pyth", ".bin", ".safetensors", ".npz", ".yaml")


def _inside(payload: bytes, position: str) -> bytes:
    """A pickle with another one as a value, as a pickle of protocol 2.

    The STOP of the inner one goes, and so does its PROTO, which the outer one has.
    """
    inner = payload[2:-1] if payload[:1] == b"\x80" else payload[:-1]
    wraps = {
        "alone": (b"", b""),
        "model": (b"}U\x05model", b"s"),
        "optimizer": (b"}U\x05model}sU\x09optimizer", b"s"),
        "weight": (b"}U\x05model}U\x01w", b"ss"),
        "tuple": (b"(", b"t"),
    }
    before, after = wraps[position]
    return b"\x80\x04" + before + inner + after + b"."


_POSITIONS = ("alone", "model", "optimizer", "weight", "tuple")


def _as_array_file(payload: bytes, path: Path) -> None:
    """A ``.npz`` file with an array of objects whose pickle is the payload."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w.npy", np.lib.format.magic(1, 0) + head.getvalue()[8:] + payload)


_WRAPS: tuple[Callable[[bytes, Path], object], ...] = (
    lambda payload, path: path.write_bytes(payload),
    as_torch_file,
    _as_array_file,
)


@functools.lru_cache
def _model() -> tuple[CfgNode, torch.nn.Module]:
    cfg = tiny_cfg()
    return cfg, build_model(cfg)


def _resume(path: Path) -> None:
    name = f"model_0000001{path.suffix}"
    os.rename(path, path.parent / name)
    (path.parent / "last_checkpoint").write_text(name)
    model = _model()[1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    SafeCheckpointer(model, str(path.parent), optimizer=optimizer).resume_or_load("", resume=True)


def _demo(path: Path) -> None:
    cfg = _model()[0].clone()
    cfg.MODEL.WEIGHTS = str(path)
    build_predictor(cfg)


_LOADERS: dict[str, Callable[[Path], object]] = {
    "train": lambda path: SafeCheckpointer(_model()[1]).resume_or_load(str(path), resume=False),
    "train --resume": _resume,
    "train --eval-only": lambda path: SafeCheckpointer(_model()[1], must_fit=True).load(str(path)),
    "demo": _demo,
    "convert_weights": lambda path: read_weights(str(path)),
    "read_weights_file": lambda path: read_weights_file(str(path)),
}
_RARE = {"demo"}  # builds a model each time


@attack(
    f"weights files with {len(_PAYLOADS)} payloads, in 5 places, 8 endings and 3 containers,"
    " through train, --resume, --eval-only, demo and convert_weights",
    "nothing runs; one error with the file",
    count=4000,
    quick=60,
    limit=60,
)
def malicious_weights(index: int, rng: random.Random, folder: Path) -> str | None:
    """One payload, one place, one container, one way to load."""
    mark = folder / "ran"
    name = _PAYLOADS[index % len(_PAYLOADS)]
    names = [each for each in _LOADERS if each not in _RARE or index % 20 == 0]
    loader = "demo" if index % 20 == 0 else rng.choice(names)
    position, ending = rng.choice(_POSITIONS), rng.choice(_ENDINGS)
    payload = _inside(payloads_of(str(mark))[name], position)
    container = rng.choice(_WRAPS)
    path = folder / "files" / f"weights{ending}"
    path.parent.mkdir()
    container(payload, path)
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # PyTorch's own way round the check
    told = f"{name} in {position}, {ending}, by {loader}"
    fault = None
    try:
        _LOADERS[loader](path)
    except MaskFreeError as error:
        if str(path.parent) not in str(error):
            fault = f"a message without the file: {error}"
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    if mark.exists():
        return f"code ran: {told}"
    return f"{told}: {fault}" if fault else None
