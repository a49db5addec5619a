"""tools/export_model.py, and tools/demo.py on what it wrote."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from maskfreevis_ext.inference.video_io import FrameWriter, open_frames
from tests.helpers.training import ROOT
from tests.inference.export.conftest import small_model

export = runpy.run_path(str(ROOT / "tools" / "export_model.py"))["main"]
demo = runpy.run_path(str(ROOT / "tools" / "demo.py"))["main"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Config, weights and a folder with a video of 6 frames, 60 x 90."""
    folder = tmp_path_factory.mktemp("files")
    cfg, model = small_model("MODEL.MASK_FORMER.DEC_LAYERS", 2)
    (folder / "config.yaml").write_text(cfg.dump())
    torch.save({"model": model.state_dict()}, folder / "model.pth")
    rng = np.random.RandomState(0)
    with FrameWriter(folder / "frames", fps=4) as writer:
        for _ in range(6):
            writer.write(rng.randint(0, 256, (60, 90, 3)).astype(np.uint8))
    return folder


def arguments(files: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--config-file", str(files / "config.yaml"), "--output", str(output), *more),
        *("--opts", "MODEL.WEIGHTS", str(files / "model.pth")),
    ]


@pytest.fixture(scope="module")
def exported(files) -> Path:
    """The ONNX export of the model."""
    output = files / "exported"
    size = ("--video-size", "120", "180")
    names = ("--classes", "cat", "dog", "emu")
    export(arguments(files, output, "--formats", "onnx", *size, *names))
    return output


def refused(main, words: list[str], capsys) -> str:
    """The message of a call that ends with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_demo_on_onnx_writes_what_demo_on_the_model_writes(files, exported, tmp_path):
    wanted = ("--input", str(files / "frames"), "--confidence", "0", "--save", "ytvis", "mp4")
    windows = ("TEST.WINDOW.ABOVE", "4", "TEST.WINDOW.SIZE", "4", "TEST.WINDOW.STRIDE", "2")
    config = ("--config-file", str(files / "config.yaml"), "--output", str(tmp_path / "torch"))
    weights = ("MODEL.WEIGHTS", str(files / "model.pth"))
    assert demo([*config, *wanted, "--opts", *weights, *windows]) == 0

    output = ("--output", str(tmp_path / "onnx"))
    assert demo(["--onnx", str(exported), *output, *wanted, "--opts", *windows]) == 0

    found, expected = (
        json.loads((tmp_path / name / "frames.json").read_text()) for name in ("onnx", "torch")
    )
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one["category_id"] == other["category_id"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)
        assert len(one["segmentations"]) == 6
    assert len(list(open_frames(tmp_path / "onnx" / "frames.mp4"))) == 6


@pytest.mark.slow
def test_export_has_the_names_of_the_classes(exported, files, tmp_path, capsys):
    description = json.loads((exported / "export.json").read_text())
    assert [each["name"] for each in description["categories"]] == ["cat", "dog", "emu"]
    assert set(description["graphs"]) == {"frames", "decoder"}
    assert {path.suffix for path in exported.iterdir()} == {".onnx", ".json", ".yaml"}

    words = ["--onnx", str(exported), "--input", str(files / "frames"), "--classes", "cow"]
    said = refused(demo, [*words, "--output", str(tmp_path / "out")], capsys)

    assert "expected names of classes (cat, dog, emu)" in said


class TestFaults:
    def test_file_of_other_origin_is_not_replaced(self, files, tmp_path, capsys):
        (tmp_path / "frames.onnx").write_bytes(b"mine")
        said = refused(export, arguments(files, tmp_path), capsys)
        assert "frames.onnx: exists" in said
        assert (tmp_path / "frames.onnx").read_bytes() == b"mine"

    def test_weights_are_not_replaced(self, files, tmp_path, capsys):
        (tmp_path / "config.yaml").write_text((files / "config.yaml").read_text())
        words = [*arguments(files, tmp_path, "--overwrite")]
        words[1] = str(tmp_path / "config.yaml")
        assert "config.yaml: is an input" in refused(export, words, capsys)

    def test_size(self, files, tmp_path, capsys):
        said = refused(export, arguments(files, tmp_path, "--video-size", "0", "180"), capsys)
        assert "--video-size: expected two numbers > 0, got 0 180" in said

    def test_no_weights(self, files, tmp_path, capsys):
        words = arguments(files, tmp_path / "out")[:4]
        assert "MODEL.WEIGHTS: expected a checkpoint" in refused(export, words, capsys)
        assert not (tmp_path / "out").exists()

    def test_folder_that_is_no_export(self, files, tmp_path, capsys):
        words = ["--onnx", str(tmp_path), "--input", str(files / "frames")]
        said = refused(demo, [*words, "--output", str(tmp_path / "out")], capsys)
        assert "export.json: expected the description of an exported model" in said

    @pytest.mark.parametrize("model", [[], ["--onnx", "a", "--config-file", "b"]])
    def test_demo_takes_one_of_config_and_export(self, model, capsys):
        assert "--config-file" in refused(demo, [*model, "--input", "x", "--output", "y"], capsys)
