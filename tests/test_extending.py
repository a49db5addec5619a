"""The examples of docs/extending.md run as they stand there."""

from __future__ import annotations

import re

import pytest
import torch
from detectron2.modeling import build_model

from maskfreevis_ext.config import keys
from maskfreevis_ext.evaluation import registry
from maskfreevis_ext.losses import term
from tests.helpers.configs import tiny_cfg
from tests.helpers.training import ROOT
from tests.modeling.test_meta_arch import _clip


def _examples() -> list[str]:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries that are put back at the end."""
    monkeypatch.setattr(keys, "_REGISTRY", dict(keys._REGISTRY))
    for known in (term.LOSS_TERM_REGISTRY, registry.EVALUATOR_REGISTRY):
        monkeypatch.setattr(known, "_obj_map", dict(known._obj_map))


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("heads", [False, True])
def test_loss_term_in_one_file_is_trained_and_configured(heads: bool) -> None:
    source = next(code for code in _examples() if "LOSS_TERM_REGISTRY" in code)
    assert len([line for line in source.splitlines() if line.strip()]) <= 20
    exec(source, {})
    options = ("MODEL.MULTIMASK.ENABLED", True) if heads else ()
    model = build_model(tiny_cfg("MODEL.MASKFREE.AREA.WEIGHT", 2.0, *options)).train()
    losses = model([_clip(2), _clip(2, supervision="mask")])
    names = ["loss_area", *(f"loss_area_{i}" for i in range(3))]
    assert all(0 <= float(losses[name].detach()) <= 1.2 for name in names)
    assert model.criterion.weights["loss_area"] == 2.0
    empty = model([_clip(2, objects=0)])
    assert all(float(empty[name].detach()) == 0 for name in names)
    sum(losses[name] for name in names).backward()
    gradient = model.sem_seg_head.predictor.mask_embed.layers[-1].weight.grad
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).any()


@pytest.mark.usefixtures("registries")
def test_evaluator_in_one_function_is_found_by_its_type() -> None:
    source = next(code for code in _examples() if "EVALUATOR_REGISTRY" in code)
    exec(source, {"MyEvaluator": lambda name, folder: (name, folder)})
    assert registry.EVALUATOR_REGISTRY.get("my_metric")("data", "out") == ("data", "out")
