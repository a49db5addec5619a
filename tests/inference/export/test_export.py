"""Exported graphs give what the model gives, alone and in the place of the model."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch

from maskfreevis_ext.errors import CheckpointError, ConfigError, DataError, NumericError
from maskfreevis_ext.inference.export import write
from maskfreevis_ext.inference.export.graphs import build_graphs, check_heads
from maskfreevis_ext.inference.export.onnx_model import (
    OnnxGraph,
    OnnxModel,
    OnnxPredictor,
    load_exported_config,
    read_description,
)
from maskfreevis_ext.inference.export.write import TOLERANCE, export_model, frame_size
from maskfreevis_ext.inference.predictor import VideoPredictor
from maskfreevis_ext.inference.video_io import FrameWriter
from maskfreevis_ext.ops import deform_attn
from tests.helpers.configs import tiny_cfg
from tests.helpers.training import ROOT
from tests.inference.export.conftest import CATEGORIES, small_model

pytestmark = pytest.mark.slow


def make_frames(count: int, height: int = 120, width: int = 180) -> list[np.ndarray]:
    """A bright square that moves over noise."""
    rng = np.random.RandomState(0)
    frames = [rng.randint(0, 100, (height, width, 3)).astype(np.uint8) for _ in range(count)]
    for t, frame in enumerate(frames):
        frame[20:60, 10 + 8 * t : 60 + 8 * t] = (200, 220, 40)
    return frames


def assert_same_tracks(found: dict, expected: dict) -> None:
    """Scores equal to 1e-3, and masks in all but a few pixels, where a logit is close to 0."""
    assert found["image_size"] == expected["image_size"]
    assert found["pred_labels"] == expected["pred_labels"]
    assert found["pred_scores"] == pytest.approx(expected["pred_scores"], abs=1e-3)
    for one, other in zip(found["pred_masks"], expected["pred_masks"], strict=True):
        pairs = list(zip(one, other, strict=True))
        wrong = np.mean([(np.asarray(a) != np.asarray(b)).mean() for a, b in pairs])
        assert wrong < 1e-3


def test_description_says_what_a_program_needs(exported):
    description = json.loads((exported.folder / "export.json").read_text())

    assert description == exported.description
    assert description["frame_size"] == [60, 90]
    assert description["padded_size"] == [64, 96]
    assert description["channel_order"] == "RGB"
    assert description["pixel_mean"] == list(exported.cfg.MODEL.PIXEL_MEAN)
    assert description["categories"] == CATEGORIES
    assert description["window"] == {"size": 16, "stride": 14, "mode": "offline"}
    assert set(description["versions"]) >= {"torch", "onnx", "onnxruntime", "maskfreevis_ext"}
    assert description["graphs"]["frames"]["inputs"] == {"images": ["frames", 3, 64, 96]}
    assert description["graphs"]["rating"]["inputs"]["pred_masks"][:2] == ["tracks", "frames"]
    named = {name for graph in description["graphs"].values() for name in graph["files"].values()}
    files = {path.name for path in exported.folder.iterdir()}
    assert files == named | {"export.json", "config.yaml"}
    for graph in description["graphs"].values():
        assert set(graph["largest_error"]) == {"onnx", "torch"}
        assert max(graph["largest_error"].values()) <= TOLERANCE


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnx_graphs_equal_the_model_for_any_number_of_frames(exported, count, seed):
    for graph in build_graphs(exported.model, (64, 96), count, seed):
        run = OnnxGraph(exported.folder / f"{graph.name}.onnx")
        found = run(*graph.example)
        with torch.no_grad():
            expected = graph.module(*graph.example)
        assert list(found) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["frames", "decoder", "rating"])
def test_torch_graphs_equal_the_model(exported, name):
    graph = {g.name: g for g in build_graphs(exported.model, (64, 96), 5, seed=3)}[name]
    program = torch.export.load(exported.folder / f"{name}.pt2").module()
    with torch.no_grad():
        found, expected = program(*graph.example), graph.module(*graph.example)
    for output, value in expected.items():
        torch.testing.assert_close(found[output], value, rtol=1e-3, atol=1e-3)


def test_torch_graph_of_the_frames_takes_one_frame(exported):
    program = torch.export.load(exported.folder / "frames.pt2").module()
    assert program(torch.zeros(1, 3, 64, 96))["mask_features"].shape == (1, 24, 16, 24)


def test_predictor_on_onnx_gives_the_tracks_of_the_model(exported):
    frames = make_frames(3)
    expected = VideoPredictor(exported.cfg, exported.model)(frames)

    found = OnnxPredictor(exported.folder)(frames)

    assert_same_tracks(found, expected)
    difference = found["dynamic_mask"].int() - expected["dynamic_mask"].int()
    assert difference.abs().max() <= 1


def test_windows_on_onnx_give_the_tracks_of_the_model(exported):
    windows = ("TEST.WINDOW.ABOVE", "2", "TEST.WINDOW.SIZE", "3", "TEST.WINDOW.STRIDE", "2")
    cfg = exported.cfg.clone()
    cfg.merge_from_list(list(windows))
    frames = make_frames(8)
    expected = VideoPredictor(cfg, exported.model)(frames)

    predictor = OnnxPredictor(exported.folder, load_exported_config(exported.folder, windows))

    assert predictor.windows.size == 3
    assert_same_tracks(predictor(frames), expected)
    streamed = list(predictor.stream(frames))
    torch_streamed = list(VideoPredictor(cfg, exported.model).stream(frames))
    assert len(streamed) == 8
    for one, other in zip(streamed, torch_streamed, strict=True):
        np.testing.assert_array_equal(one.track_ids, other.track_ids)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(180, 120), (120, 120), (30, 200), (60, 90)])
def test_other_sizes_are_fitted_into_the_graphs(exported, height, width):
    tracks = OnnxPredictor(exported.folder)(make_frames(2, height, width))
    assert tracks["image_size"] == (height, width)
    assert all(mask.shape == (2, height, width) for mask in tracks["pred_masks"])


def test_examples_of_the_documentation_run(exported, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    predict, plain = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "exported").symlink_to(exported.folder)
    with FrameWriter(tmp_path / "clip.mp4") as writer:
        for frame in make_frames(2):
            writer.write(frame)
    monkeypatch.chdir(tmp_path)
    clip = np.stack(make_frames(2, 60, 90)).transpose(0, 3, 1, 2)
    names: dict = {"clip": clip}

    exec(predict, names)
    exec(plain, names)

    assert names["tracks"]["image_size"] == (120, 180)
    with torch.no_grad():
        expected = exported.model.decode(exported.model.encode(torch.from_numpy(clip)))
    for found, name in (("class_logits", "pred_logits"), ("mask_logits", "pred_masks")):
        np.testing.assert_allclose(names[found], expected[name].numpy(), rtol=1e-3, atol=1e-3)


def test_frames_that_are_too_large_are_refused_by_the_model(exported):
    model = OnnxModel(exported.folder, load_exported_config(exported.folder))
    with pytest.raises(DataError, match=r"at most 64 x 96 .* got 65 x 20"):
        model.encode(torch.zeros(1, 3, 65, 20, dtype=torch.uint8))


def test_large_maps_are_exported_without_the_sparse_kernels():
    _, model = small_model("MODEL.MASK_FORMER.DEC_LAYERS", 2)
    graph = build_graphs(model, (128, 256), 2)[0]
    maps = list(graph.module(*graph.example).values())[1:]
    assert sum(m.shape[2] * m.shape[3] for m in maps) >= deform_attn._SPARSE_TOKENS
    program = torch.export.export(graph.module, graph.example)
    # also the part without autocast, which is a graph within the graph
    parts = [part for part in program.graph_module.modules() if hasattr(part, "graph")]
    names = {str(node.target) for part in parts for node in part.graph.nodes}
    assert any("grid_sampler" in name for name in names)
    assert not any("embedding_bag" in name for name in names)


class TestFaults:
    def test_difference_from_the_model_writes_nothing(self, tmp_path, monkeypatch):
        cfg, model = small_model()
        (tmp_path / "export.json").write_text("{}")

        def load_another(path):
            torch.manual_seed(7)
            return lambda images: {
                "mask_features": torch.full((len(images), 24, 16, 24), float("nan"))
            }

        monkeypatch.setitem(write._WRITERS, "torch", (write._write_torch, load_another))
        with pytest.raises(NumericError, match=r"frames.pt2: expected the output mask_features"):
            export_model(cfg, model, tmp_path, video_size=(120, 180), formats=["torch"])
        assert [path.name for path in tmp_path.iterdir()] == ["export.json"]

    def test_missing_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(ConfigError, match=r"importing onnxscript fails.*\[export\]"):
            write.check_formats(["onnx"])
        write.check_formats(["torch"])

    def test_missing_runtime(self, exported, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ConfigError, match=r"frames.onnx: .*onnxruntime"):
            OnnxPredictor(exported.folder)

    def test_head_with_results_of_its_own(self):
        from maskfreevis_ext.modeling.heads import AuxHead

        class Own(AuxHead):
            name = "own_head"

            def results(self, outputs, sizes):
                return {"own": 1}

        _, model = small_model()
        model.sem_seg_head.predictor._add_heads({"own_head": Own()})
        with pytest.raises(ConfigError, match=r"own_head \(Own\) adds results"):
            check_heads(model)

    @pytest.fixture
    def copied(self, exported, tmp_path):
        return shutil.copytree(exported.folder, tmp_path / "copied")

    def test_no_export(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"export.json: expected the description"):
            OnnxPredictor(tmp_path)

    def test_other_format(self, copied):
        (copied / "export.json").write_text('{"format": 2}')
        with pytest.raises(CheckpointError, match="format: expected 1, got 2"):
            read_description(copied)

    def test_missing_file(self, copied):
        (copied / "decoder.onnx").unlink()
        with pytest.raises(CheckpointError, match=r"decoder.onnx: there is no such file"):
            OnnxPredictor(copied)

    def test_damaged_file(self, copied):
        (copied / "decoder.onnx").write_bytes(b"no graph")
        with pytest.raises(CheckpointError, match=r"decoder.onnx: ONNX Runtime cannot load"):
            OnnxPredictor(copied)

    def test_export_without_onnx(self, copied):
        description = json.loads((copied / "export.json").read_text())
        del description["graphs"]["frames"]["files"]["onnx"]
        (copied / "export.json").write_text(json.dumps(description))
        with pytest.raises(CheckpointError, match=r"expected ONNX files, got \['torch'\]"):
            OnnxPredictor(copied)


def test_frame_size_is_that_of_the_test_loader():
    cfg = tiny_cfg("INPUT.MIN_SIZE_TEST", 360, "INPUT.MAX_SIZE_TEST", 500)
    assert frame_size(cfg, (1080, 1080)) == (360, 360)
    assert frame_size(cfg, (1080, 1920)) == (281, 500)
    cfg.INPUT.MIN_SIZE_TEST = 0
    assert frame_size(cfg, (1080, 1920)) == (1080, 1920)
