"""Weights that are none, damaged or not finite end every tool in one line, before it works."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from maskfreevis_ext.engine.checkpoint import SafeCheckpointer
from maskfreevis_ext.errors import CheckpointError
from maskfreevis_ext.inference.video_io import FrameWriter
from tests.helpers.configs import tiny_cfg
from tests.helpers.training import ROOT, own_loggers

TOOLS = {
    name: runpy.run_path(str(ROOT / "tools" / f"{name}.py"))["main"]
    for name in ("demo", "convert_weights", "export_model")
}


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    with own_loggers():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A config, a video, and whole weights."""
    folder = tmp_path_factory.mktemp("weights")
    cfg = tiny_cfg("INPUT.MIN_SIZE_TEST", 32, "DATASETS.TRAIN", (), "DATASETS.TEST", ())
    (folder / "config.yaml").write_text(cfg.dump())
    torch.save({"model": build_model(cfg).state_dict()}, folder / "good.pth")
    with FrameWriter(folder / "video", fps=4) as writer:
        writer.write(np.zeros((36, 50, 3), np.uint8))
    return folder


def _flip(content: bytes) -> bytes:
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 4
    return bytes(damaged)


KINDS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "web page": (lambda _: b"<!DOCTYPE html><html>log in</html>", "this is a web page"),
    "pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    "picture": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(40), "this is a picture"),
    "archive": (lambda _: b"\x1f\x8b\x08" + bytes(40), "a compressed archive"),
    "empty": (lambda _: b"", "is empty"),
    "flipped": (_flip, "is damaged"),
    "cut": (lambda content: content[: len(content) // 2], "damaged"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tool", TOOLS)
def test_tool_ends_in_one_line(folder, tmp_path, capsys, tool, kind):
    make, told = KINDS[kind]
    path, output = tmp_path / "weights.pth", tmp_path / "out"
    path.write_bytes(make((folder / "good.pth").read_bytes()))
    words = ["--config-file", str(folder / "config.yaml")]
    if tool == "convert_weights":
        words += ["--input", str(path), "--output", f"{output}.pth"]
    else:
        words += ["--input", str(folder / "video")] if tool == "demo" else []
        words += ["--output", str(output), "--opts", "MODEL.WEIGHTS", str(path)]
    with pytest.raises(SystemExit) as end:
        TOOLS[tool](words)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert "Traceback" not in said
    assert told in said
    assert str(path) in said
    assert "weights_only" not in said
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("kind", KINDS)
def test_resume_names_the_same_faults(tmp_path, kind):
    make, told = KINDS[kind]
    SafeCheckpointer(torch.nn.Linear(9, 9), str(tmp_path)).save("model_0000001")
    path = tmp_path / "model_0000001.pth"
    path.write_bytes(make(path.read_bytes()))
    with pytest.raises(CheckpointError, match=told):
        SafeCheckpointer(torch.nn.Linear(9, 9), str(tmp_path)).resume_or_load("")
