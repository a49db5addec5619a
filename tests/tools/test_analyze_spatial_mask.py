"""The tool that measures and draws the mask of a spatial mask head."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from maskfreevis_ext.config import load_config
from tests.helpers.training import CONFIG, ROOT, TRAIN, own_loggers, tiny_options

tool = runpy.run_path(str(ROOT / "tools" / "analyze_spatial_mask.py"))


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    with own_loggers():
        yield


@pytest.fixture(scope="module")
def options(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a tiny model with the head, and its weights."""
    folder = tmp_path_factory.mktemp("analyze_spatial")
    options = tiny_options(tiny_videos, folder / "out", "MODEL.SPATIAL_MASK.ENABLED", "True")
    with own_loggers():
        torch.manual_seed(0)
        model = build_model(load_config(CONFIG, options))
    torch.nn.init.normal_(model.sem_seg_head.predictor.spatial_bias.head.layers[-1].weight)
    torch.save({"model": model.state_dict()}, folder / "weights.pth")
    return [*options, "MODEL.WEIGHTS", str(folder / "weights.pth")]


def _run(*words: object) -> None:
    tool["main"](["--config-file", CONFIG, *(str(word) for word in words)])


def test_figures_are_printed_and_written_and_maps_drawn(options, tmp_path, capsys) -> None:
    file = tmp_path / "report.json"
    _run("--json", file, "--output", tmp_path / "pictures", "--videos", 1, "--opts", *options)
    report = json.loads(file.read_text())
    assert f"IoU {report['iou']:.3f}" in capsys.readouterr().out
    assert 0 <= report["iou"] <= report["best_iou"] <= 1
    assert 0 <= report["mean_frame_iou"] <= 1
    assert report["frames"] > 0
    assert (tmp_path / "pictures" / "heat_maps.png").stat().st_size > 0


def test_iou_at_every_threshold_equals_counting() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.randint(0, 256, (2, 9, 7), dtype=torch.uint8, generator=generator)
    is_object = torch.rand(2, 9, 7, generator=generator) > 0.6
    ious = tool["ious_of_counts"](tool["count_levels"](probs, is_object))
    assert ious.shape == (256,)
    for level in (0, 1, 100, 128, 255):
        found = probs >= level
        expected = (found & is_object).sum() / (found | is_object).sum()
        assert float(ious[level]) == pytest.approx(float(expected))


def test_heat_map_is_red_where_it_is_sure() -> None:
    frame = np.full((2, 2, 3), 128, dtype=np.uint8)
    picture = tool["heat_map"](frame, np.array([[255, 0], [0, 0]], dtype=np.uint8))
    assert picture.shape == frame.shape
    assert picture[0, 0, 0] > picture[0, 0, 2]
    assert picture[1, 1, 2] > picture[1, 1, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("MODEL.SPATIAL_MASK.ENABLED", "False"), "MODEL.SPATIAL_MASK.ENABLED"),
        (("DATASETS.TEST", "()"), "DATASETS.TEST"),
        (("DATASETS.TEST", f"('{TRAIN}',)"), "there is only a box"),
    ],
)
def test_what_cannot_be_measured_is_told(options, capsys, words, message) -> None:
    with pytest.raises(SystemExit) as stop:
        _run("--opts", *options, *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
