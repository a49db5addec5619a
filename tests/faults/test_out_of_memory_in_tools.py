"""Tools that get no memory, faked: one line that names what to lower, and exit code 2."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from detectron2.modeling import build_model

from maskfreevis_ext.config import load_config
from tests.helpers.training import CONFIG, ROOT, own_loggers, tiny_options


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    with own_loggers():
        yield


@pytest.fixture(scope="module")
def weights(tiny_videos, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    cfg = load_config(CONFIG, tiny_options(tiny_videos, folder))
    torch.save({"model": build_model(cfg).state_dict()}, folder / "model.pth")
    return folder / "model.pth"


def _no_room(*args: object, **kwargs: object) -> NoReturn:
    raise RuntimeError("[enforce fail at alloc.cpp] DefaultCPUAllocator: can't allocate memory")


_MODEL = "maskfreevis_ext.modeling.meta_arch.VideoMaskFormer"
_PREDICTION = ["TEST.WINDOW.SIZE (16 frames; 8 need", "INPUT.MIN_SIZE_TEST", "44 %"]
#: Name -> tool, where memory runs out, what is to be lowered.
CASES: dict[str, tuple[str, str, list[str]]] = {
    "training": (
        "train_net",
        f"{_MODEL}._losses",
        ["SOLVER.IMS_PER_BATCH (2; with 1 about half", "INPUT.MIN_SIZE_TRAIN"],
    ),
    "evaluation": ("train_net", f"{_MODEL}.encode", _PREDICTION),
    "demo": ("demo", f"{_MODEL}.encode", _PREDICTION),
    "masks of boxes": ("boxes_to_masks", "cv2.grabCut", ["size of the frames", "--method grabcut"]),
    "export": ("export_model", "torch.export.export", ["--video-size (720 1280; 3/4 of both"]),
}


@pytest.mark.parametrize("name", CASES)
def test_tool_says_what_to_lower(tiny_videos, weights, tmp_path, monkeypatch, capsys, name):
    tool, place, parts = CASES[name]
    frames, boxes = tiny_videos / "val" / "JPEGImages", tiny_videos / "train.json"
    loaded = ["MODEL.WEIGHTS", weights, "SOLVER.IMS_PER_BATCH", 2]
    config = ["--config-file", CONFIG]
    options = tiny_options(tiny_videos, tmp_path / "out", *loaded)
    video = next(path for path in sorted(frames.iterdir()) if path.is_dir())
    output = tmp_path / "result"
    words = {
        "training": [*config, *options],
        "evaluation": [*config, "--eval-only", *options],
        "demo": [*config, "--input", video, "--output", output, "--save", "frames"],
        "masks of boxes": ["--method", "grabcut", "--json", boxes, "--output", output],
        "export": [*config, "--output", output],
    }[name]
    if name in ("demo", "export"):
        words += ["--opts", *options]
    if name == "masks of boxes":
        words += ["--images", tiny_videos / "train" / "JPEGImages"]
    main = runpy.run_path(str(ROOT / "tools" / f"{tool}.py"))["main"]
    monkeypatch.setattr(place, _no_room)
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    said = capsys.readouterr().err
    assert end.value.code == 2, said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("OutOfMemoryError: ")]
    assert len(lines) == 1, said
    for part in ["Out of memory ([enforce fail", *parts]:
        assert part in lines[0]
