"""docs/quickstart.ipynb: its cells run, with and without weights, and use the public API alone."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

import maskfreevis_ext
from maskfreevis_ext.config import load_config
from tests.helpers.training import CONFIG, ROOT, own_loggers, tiny_options, write_videos

CELLS = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = {cell["id"]: "".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"}


def run_cells(folder: Path) -> dict[str, object]:
    """Execute the cells in order, with the videos, the config and the output in a folder.

    The last expression of the cell that draws is kept as ``shown``, which Jupyter would show.
    """
    names: dict[str, object] = {}
    for cell, code in CODE.items():
        if cell == "drawing":
            code = code.replace("\nImage.fromarray", "\nshown = Image.fromarray")
        exec(compile(code, cell, "exec"), names)
        if cell == "parameters":
            names["CONFIG"] = str(folder / "tiny.yaml")
            names |= {name: str(folder / name.lower()) for name in ("DATA", "OUTPUT", "SHORT")}
            names["STEPS"] = 2
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with generated videos and the config of a tiny model."""
    monkeypatch.chdir(ROOT / "docs")
    videos = write_videos(tmp_path / "data")
    names = {"train": f"{tmp_path.name}_train", "val": f"{tmp_path.name}_val"}
    cfg = load_config(CONFIG, tiny_options(videos, tmp_path / "output", **names))
    (tmp_path / "tiny.yaml").write_text(cfg.dump())
    return tmp_path


def check(names: dict[str, object]) -> None:
    frames, results = names["frames"], names["results"]
    assert isinstance(frames, list)
    assert isinstance(results, list)
    assert len(frames) == len(results) == 4
    assert names["masks"].shape == (4, 64, 64)
    assert names["masks"].dtype == bool
    assert [objects.index for objects in results] == [0, 1, 2, 3]
    shown = names["shown"]
    assert isinstance(shown, Image.Image)
    assert shown.size == (4 * 64, 64)


def test_cells_run_with_weights(folder, capsys):
    cfg = load_config(str(folder / "tiny.yaml"))
    (folder / "output").mkdir()
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "output" / "model_final.pth")
    with own_loggers():
        names = run_cells(folder)

    check(names)
    said = capsys.readouterr().out
    assert "4 frames of (64, 64)" in said
    assert "Training" not in said
    assert not (folder / "short").exists()


@pytest.mark.slow
def test_without_weights_cells_train_for_some_steps(folder, capsys):
    with own_loggers():
        names = run_cells(folder)

    check(names)
    assert "Training 2 steps; run `make quickstart`" in capsys.readouterr().out
    assert names["weights"] == folder / "short" / "model_final.pth"
    assert not (folder / "output").exists()


def test_objects_are_drawn_in_the_colour_of_their_id(folder):
    names: dict[str, object] = {"np": np, "Image": Image, "frames": [], "results": []}
    code = CODE["drawing"].split("\ndrawn =")[0]
    exec(code, names)

    class Objects:
        track_ids = np.array([2])
        masks = np.zeros((1, 4, 6), bool)

    Objects.masks[0, 1:3] = True
    picture = names["draw"](np.full((4, 6, 3), 100, np.uint8), Objects)

    assert (picture[0] == 100).all()
    assert (picture[1] == 0.5 * 100 + 0.5 * names["COLORS"][2]).all()


def test_notebook_has_no_outputs_and_imports_public_names_alone():
    for cell in CELLS:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    for code in CODE.values():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("maskfreevis_ext"):
                assert node.module == "maskfreevis_ext"
                assert {name.name for name in node.names} <= set(maskfreevis_ext.__all__)
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("maskfreevis_ext.") for name in node.names)
