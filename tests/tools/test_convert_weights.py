"""tools/convert_weights.py reports, writes, and refuses."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

from maskfreevis_ext.config import load_config
from tests.engine.test_convert_weights import torchvision_resnet50
from tests.helpers.configs import tiny_cfg

TOOL = Path(__file__).parents[2] / "tools" / "convert_weights.py"
main = runpy.run_path(str(TOOL))["main"]


@pytest.fixture
def arguments(tmp_path):
    torch.save(torchvision_resnet50(), tmp_path / "resnet50.pth")
    (tmp_path / "tiny.yaml").write_text(tiny_cfg().dump())
    load_config(str(tmp_path / "tiny.yaml"))
    return ["--input", str(tmp_path / "resnet50.pth"), "--config-file", str(tmp_path / "tiny.yaml")]


def test_tool_writes_weights_and_report(arguments, tmp_path, capsys):
    output, report = tmp_path / "out.pth", tmp_path / "report.json"
    for _ in range(2):  # its own files are replaced
        assert main([*arguments, "--output", str(output), "--report", str(report)]) == 0
    text = capsys.readouterr().out
    assert "a ResNet of torchvision" in text
    assert "backbone: 265 of 265" in text
    assert "not in the file: " in text
    held = torch.load(output, weights_only=True)["model"]
    assert len(held) == 265
    assert json.loads(report.read_text())["matched"] == sorted(held)


@pytest.mark.parametrize(
    ("name", "text"), [("resnet50.pth", "is an input"), ("out.bin", "ends in .pth")]
)
def test_output_that_cannot_be(arguments, tmp_path, capsys, name, text):
    with pytest.raises(SystemExit) as error:
        main([*arguments, "--output", str(tmp_path / name)])
    assert error.value.code == 2
    assert text in capsys.readouterr().err
