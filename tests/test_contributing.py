"""The examples of CONTRIBUTING.md run as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from detectron2.modeling import build_model

from maskfreevis_ext.config import keys
from maskfreevis_ext.data import build_test_loader
from maskfreevis_ext.evaluation import registry
from maskfreevis_ext.modeling.heads.base import AUX_HEAD_REGISTRY
from tests.helpers.configs import tiny_cfg
from tests.helpers.training import ROOT
from tests.helpers.videos import plain_content, unique_name, write_frames
from tests.modeling.test_meta_arch import _clip


def _example(word: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return next(
        code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in code
    )


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries that are put back at the end."""
    monkeypatch.setattr(keys, "_REGISTRY", dict(keys._REGISTRY))
    for known in (AUX_HEAD_REGISTRY, registry.EVALUATOR_REGISTRY):
        monkeypatch.setattr(known, "_obj_map", dict(known._obj_map))


def test_head_in_one_file_adds_to_the_results() -> None:
    exec(_example("AUX_HEAD_REGISTRY"), {})
    model = build_model(tiny_cfg("MODEL.MEAN_MAP.ENABLED", True))
    assert "mean_map_head" in model.heads
    losses = model.train()([_clip(2)])
    sum(losses.values()).backward()
    video = {"image": _clip(3)["image"], "height": 48, "width": 64}
    assert len(model.eval()([video])[0]["map_mean"]) == 3
    assert "mean_map_head" not in build_model(tiny_cfg()).heads


def test_data_set_is_scored_by_the_evaluator_of_its_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = plain_content((2,))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "val.json").write_text(json.dumps(content))
    write_frames(tmp_path / "my", content)
    name = unique_name("my_val")
    exec(_example("EVALUATOR_REGISTRY"), {})
    exec(_example("register_ytvis_instances").replace("my_val", name), {})
    evaluator = registry.build_evaluator(name)
    evaluator.reset()
    for inputs in build_test_loader(tiny_cfg("DATALOADER.NUM_WORKERS", 0), name):
        evaluator.process(inputs, [{"pred_scores": [0.9, 0.8]} for _ in inputs])
    assert evaluator.evaluate() == {"tracks": {"mean": 2.0}}
