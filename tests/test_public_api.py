"""What ``import maskfreevis_ext`` offers, what it costs, and the example of the README."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

import maskfreevis_ext
from maskfreevis_ext.config import load_config
from maskfreevis_ext.inference.video_io import FrameWriter
from tests.helpers.training import CONFIG, own_loggers, tiny_options

REPO = Path(maskfreevis_ext.__file__).resolve().parents[1]
PUBLIC = {
    "VideoPredictor",
    "__version__",
    "add_maskfreevis_config",
    "build_predictor",
    "errors",
    "load_config",
    "register_ytvis_instances",
}


def _in_new_process(code: str) -> str:
    """Standard output of a Python process, on the embedded provider, which imports least."""
    env = {**os.environ, "MASKFREEVIS_DETECTRON2": "embedded", "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_names_are_there_and_listed():
    assert set(maskfreevis_ext.__all__) == PUBLIC
    assert set(dir(maskfreevis_ext)) >= PUBLIC
    for name in PUBLIC:
        assert getattr(maskfreevis_ext, name) is getattr(maskfreevis_ext, name)
    assert issubclass(maskfreevis_ext.errors.DataError, maskfreevis_ext.errors.MaskFreeError)
    assert re.fullmatch(r"\d+\.\d+\.\d+", maskfreevis_ext.__version__)


def test_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"maskfreevis_ext.*no attribute 'predict'"):
        _ = maskfreevis_ext.predict


def test_import_registers_the_models_and_leaves_out_what_is_slow():
    out = _in_new_process(
        "import json, sys, maskfreevis_ext\n"
        "slow = ['cv2', 'scipy', 'tensorboard', 'matplotlib', 'torch.utils.tensorboard']\n"
        "slow += ['maskfreevis_ext.engine', 'maskfreevis_ext.inference.predictor']\n"
        "loaded = [name for name in slow if name in sys.modules]\n"
        "from detectron2.data import DatasetCatalog\n"
        "from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY\n"
        "found = [META_ARCH_REGISTRY.get('VideoMaskFormer').__name__]\n"
        "found += [BACKBONE_REGISTRY.get('D2SwinTransformer').__name__]\n"
        "found += [name for name in DatasetCatalog.list() if name == 'ytvis_2019_train']\n"
        "print(json.dumps([loaded, found]))"
    )
    loaded, found = json.loads(out)
    assert loaded == []
    assert found == ["VideoMaskFormer", "D2SwinTransformer", "ytvis_2019_train"]


def test_star_import_gives_the_public_names():
    out = _in_new_process("from maskfreevis_ext import *\nprint(' '.join(dir()))")
    assert set(out.split()) >= PUBLIC


def _readme_example() -> str:
    section = (REPO / "README.md").read_text(encoding="utf-8").split("## Predict in Python\n")[1]
    match = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert match is not None
    return match[1]


def _write_inputs(folder: Path) -> None:
    """The files that the example names: config, weights and a video of 3 frames 48 x 64."""
    names = {split: f"{folder.name}_{split}" for split in ("train", "val")}  # of this folder alone
    cfg = load_config(CONFIG, tiny_options(folder, folder, **names))
    (folder / "my.yaml").write_text(cfg.dump())
    weights = folder / "output" / "my" / "model_final.pth"
    weights.parent.mkdir(parents=True)
    torch.save({"model": build_model(cfg).state_dict()}, weights)
    with FrameWriter(folder / "clip.mp4") as writer:
        for t in range(3):
            writer.write(np.full((48, 64, 3), 40 * t, dtype=np.uint8))


def test_example_of_the_readme_predicts_on_a_video(tmp_path, monkeypatch):
    example = _readme_example()
    assert len([line for line in example.splitlines() if line.strip()]) == 5
    with own_loggers():
        _write_inputs(tmp_path)
        monkeypatch.chdir(tmp_path)
        names: dict[str, object] = {}
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(example, names)
    tracks = names["tracks"]
    assert isinstance(tracks, dict)
    assert tracks["image_size"] == (48, 64)
    lines = out.getvalue().splitlines()
    assert len(lines) == len(tracks["pred_masks"]) > 0
    for line in lines:
        assert re.fullmatch(r"class [0-2], score [01]\.\d\d, in [0-3] of 3 frames", line)


def test_public_predictor_streams_the_objects_of_each_frame(tmp_path):
    with own_loggers():
        _write_inputs(tmp_path)
        predictor = maskfreevis_ext.build_predictor(
            str(tmp_path / "my.yaml"), weights=tmp_path / "output" / "my" / "model_final.pth"
        )
        assert isinstance(predictor, maskfreevis_ext.VideoPredictor)
        frames = (np.full((48, 64, 3), 40 * t, dtype=np.uint8) for t in range(3))
        results = list(predictor.stream(frames))
    assert [objects.index for objects in results] == [0, 1, 2]
    for objects in results:
        assert objects.masks.shape == (len(objects), 48, 64)
        assert objects.masks.dtype == bool
        assert objects.boxes.shape == (len(objects), 4)
        assert len(set(objects.track_ids.tolist())) == len(objects)
        assert set(objects.labels.tolist()) <= {0, 1, 2}
        assert ((objects.scores >= 0) & (objects.scores <= 1)).all()
