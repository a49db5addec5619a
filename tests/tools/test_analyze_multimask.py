"""tools/analyze_multimask.py compares shown, ordinary and best masks."""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from torch import Tensor, nn

from maskfreevis_ext.config import load_config
from maskfreevis_ext.data import register_ytvis_instances
from maskfreevis_ext.modeling.heads.multimask import MultimaskHead
from maskfreevis_ext.ops.clip import FrameSizes
from tests.helpers.training import CONFIG, ROOT, TRAIN, own_loggers, tiny_options
from tests.helpers.videos import HEIGHT, WIDTH, plain_content, unique_name, write_json

tool = runpy.run_path(str(ROOT / "tools" / "analyze_multimask.py"))
ROWS = ("shown by the model", "ordinary masks", "oracle")
ON = ("MODEL.MULTIMASK.ENABLED", "True")


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    with own_loggers():
        yield


@pytest.fixture(scope="module")
def options(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a tiny model with the head, with weights whose ratings differ."""
    folder = tmp_path_factory.mktemp("analyze")
    options = tiny_options(tiny_videos, folder / "out", *ON)
    with own_loggers():
        torch.manual_seed(0)
        model = build_model(load_config(CONFIG, options))
    head = model.heads[MultimaskHead.name]
    for mlp in (*head.hypernetworks, head.iou_head, head.object_score_head):
        nn.init.normal_(mlp.layers[-1].weight)
    torch.save({"model": model.state_dict()}, folder / "weights.pth")
    return [*options, "MODEL.WEIGHTS", str(folder / "weights.pth")]


def _run(*words: object) -> None:
    tool["main"](["--config-file", CONFIG, *(str(word) for word in words)])


def _fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must end with exit code 2; gives the only line of its complaint."""
    with pytest.raises(SystemExit) as stop:
        _run(*words)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_rows_are_printed_and_written(options, tmp_path, capsys) -> None:
    _run("--json", tmp_path / "report.json", "--opts", *options)

    report = json.loads((tmp_path / "report.json").read_text())
    assert tuple(report["ap"]) == ROWS
    printed = capsys.readouterr().out.splitlines()
    for kind, values in report["ap"].items():
        assert list(values) == ["AP", "AP50", "AP75"]
        for value in values.values():
            assert math.isfinite(value)
            assert 0 <= value <= 100
        row = kind.ljust(20) + "".join(f"{value:8.2f}" for value in values.values())
        assert row in printed
    assert math.isnan(report["rank_correlation"]) or -1 <= report["rank_correlation"] <= 1
    assert report["pairs"] > 0
    for name in ("mean_predicted_iou", "mean_true_iou"):
        assert 0 <= report[name] <= 1
    assert f"({report['pairs']} hypotheses)" in printed[-1]


def test_output_that_cannot_be_written_is_told(options, tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("mine")
    path = tmp_path / "file" / "report.json"
    line = _fails(capsys, "--json", path, "--opts", *options)
    assert line.startswith(f"DataError: {path}: cannot be written")


def test_model_without_the_head_is_told(options, capsys) -> None:
    line = _fails(capsys, "--opts", *options, ON[0], "False")
    assert line.startswith("ConfigError: MODEL.MULTIMASK.ENABLED: expected True")


def test_missing_test_set_is_told(options, capsys) -> None:
    line = _fails(capsys, "--opts", *options, "DATASETS.TEST", "()")
    assert line.startswith("ConfigError: DATASETS.TEST: expected a data set with masks")


def test_data_set_without_annotations_is_told(options, tiny_videos, tmp_path, capsys) -> None:
    content = json.loads((tiny_videos / "val.json").read_text())
    del content["annotations"]
    file = tmp_path / "test.json"
    file.write_text(json.dumps(content))
    root = tiny_videos / "val" / "JPEGImages"
    name = "analyze_without_annotations"
    datasets = f"[['{name}', '{file}', '{root}']]"
    line = _fails(
        capsys,
        "--opts",
        *options,
        "INPUT.DATASETS",
        datasets,
        "DATASETS.TEST",
        f"('{name}',)",
        "DATASETS.TRAIN",
        "()",
    )
    assert line.startswith(f"DataError: {name} has nothing to compare with")


def test_missing_weights_are_told(options, capsys) -> None:
    line = _fails(capsys, "--opts", *options, "MODEL.WEIGHTS", "")
    assert line.startswith("ConfigError: MODEL.WEIGHTS")


def test_data_set_without_masks_is_told(options, tmp_path, capsys) -> None:
    # the training videos have boxes only
    path = tmp_path / "report.json"
    line = _fails(capsys, "--json", path, "--opts", *options, "DATASETS.TEST", f"('{TRAIN}',)")
    assert line.startswith("DataError: video ")
    assert "there is only a box" in line
    assert "'segmentations'" in line
    assert not path.exists()


@pytest.mark.parametrize(("first", "second"), [(3, 2), (1, 4), (0, 2), (3, 0)])
def test_overlaps_equal_counting(first: int, second: int) -> None:
    masks = torch.rand(first, 4, 5, 6) > 0.4
    others = torch.rand(second, 4, 5, 6) > 0.7
    masks[:1, 0] = others[:1, 0] = False
    shared, union = tool["overlaps"](masks, others)
    assert shared.shape == union.shape == (first, second, 4)
    for a in range(first):
        for g in range(second):
            for t in range(4):
                pairs = list(
                    zip(
                        masks[a, t].flatten().tolist(),
                        others[g, t].flatten().tolist(),
                        strict=True,
                    )
                )
                assert shared[a, g, t] == sum(x and y for x, y in pairs)
                assert union[a, g, t] == sum(x or y for x, y in pairs)


@pytest.fixture
def videos(tmp_path) -> str:
    """Name of a data set of one video: a dog in all 3 frames, a cat in the last 2."""
    name = unique_name("analyze")
    content = plain_content((3,), masks=True)
    crowd = {**content["annotations"][0], "id": 99, "iscrowd": 1}
    content["annotations"].insert(0, crowd)
    register_ytvis_instances(name, {}, write_json(tmp_path, content), str(tmp_path))
    return name


def test_object_masks_are_those_of_the_file(videos) -> None:
    masks = tool["object_masks"](DatasetCatalog.get(videos)[0])
    expected = torch.zeros(2, 3, HEIGHT, WIDTH, dtype=torch.bool)
    for t in range(3):
        expected[0, t, 3:9, 2 + t : 10 + t] = True
        if t:
            expected[1, t, 5 + t : 12 + t, 15:25] = True
    assert torch.equal(masks, expected)


class _Head(MultimaskHead):
    """Two hypotheses per object: the ordinary one lacks three columns, the other is right."""

    def __init__(self, ious: tuple[float, float]) -> None:
        super().__init__(query_dim=3, mask_dim=4, num_masks=1)
        self.ious = torch.tensor(ious)

    def embed(self, queries: Tensor, mask_embed: Tensor) -> Tensor:
        return torch.stack([mask_embed, mask_embed.roll(2, dims=-1)], dim=1)

    def ratings(self, queries: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.tensor([[5.0, 5.0, 5.0], [-5.0, 5.0, 5.0]])
        return self.ious[:, None].expand(len(queries), 2, 3), scores[: len(queries)]


class _Model:
    """Finds the dog and the cat; both have a mask in frame 0 too, where there is no cat."""

    num_tracks = 2

    def __init__(self, name: str, head: _Head, num_queries: int = 2) -> None:
        self.heads, self.num_queries = {MultimaskHead.name: head}, num_queries
        masks = tool["object_masks"](DatasetCatalog.get(name)[0])
        masks[1, 0] = masks[1, 1]
        small = masks.clone()
        for mask in small.flatten(0, 1):
            first = int(mask.any(0).int().argmax())
            mask[:, first : first + 3] = False
        self.features = 20.0 * torch.cat([small, masks]) - 10  # (C, T, H, W)

    def predict(self, sample: dict) -> tuple[dict[str, Tensor], FrameSizes]:
        outputs = {
            "pred_logits": torch.tensor([[0.0, 8.0, 0.0, 0.0], [8.0, 0.0, 0.0, 0.0]]),
            "pred_masks": self.features[:2],
            "queries": torch.zeros(2, 3),
            "mask_embed": torch.eye(4)[:2],
        }
        outputs = {name: tensor[: self.num_queries] for name, tensor in outputs.items()}
        outputs["mask_features"] = self.features
        size = HEIGHT, WIDTH
        return outputs, FrameSizes(size, size, size)


@pytest.mark.parametrize("is_well_rated", [True, False])
def test_oracle_shows_the_best_hypothesis_however_it_is_rated(videos, is_well_rated: bool) -> None:
    head = _Head((0.3, 0.8) if is_well_rated else (0.8, 0.3))
    report = tool["analyze"](_Model(videos, head), iter([[{"video_id": 1}]]), videos)
    shown, ordinary, oracle = (report["ap"][kind]["AP"] for kind in ROWS)
    assert oracle == pytest.approx(100)
    if is_well_rated:
        assert shown == pytest.approx(100)
        assert report["rank_correlation"] > 0.5
    else:
        assert ordinary == shown < 100
        assert report["rank_correlation"] < -0.5
    assert 0 < ordinary < 100
    assert report["pairs"] == 2 * (3 + 2)  # hypotheses x frames with the object
    assert report["mean_predicted_iou"] == pytest.approx(0.55)
    true = (3 * (1 + 5 / 8) + 2 * (1 + 7 / 10)) / 10
    assert report["mean_true_iou"] == pytest.approx(true)


def test_object_that_no_query_finds_gives_no_pairs(videos) -> None:
    model = _Model(videos, _Head((0.3, 0.8)), num_queries=1)
    report = tool["analyze"](model, iter([[{"video_id": 1}]]), videos)
    assert report["pairs"] == 2 * 3
    assert report["mean_true_iou"] == pytest.approx((1 + 5 / 8) / 2)
    assert report["ap"]["oracle"]["AP"] == pytest.approx(50)  # one class of two


def test_correlation_is_undefined_without_variety() -> None:
    pairs = tool["Pairs"]
    assert math.isnan(pairs([], []).correlation())
    assert math.isnan(pairs([0.5, 0.5], [0.1, 0.2]).correlation())
    assert math.isnan(pairs([0.1, 0.2], [0.5, 0.5]).correlation())
    assert pairs([0.1, 0.2, 0.4], [0.3, 0.5, 0.9]).correlation() == pytest.approx(1)
    assert pairs([0.1, 0.2, 0.4], [0.9, 0.5, 0.3]).correlation() == pytest.approx(-1)
