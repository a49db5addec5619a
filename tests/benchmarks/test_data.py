"""The loading of clips: the literal path gives the frames and objects of the mapper."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.command_line import main
from benchmarks.jobs.data import _literal, decoding_differences
from benchmarks.options import QUICKSTART_CONFIG, parse_args
from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.mappers import YTVISDatasetMapper
from maskfreevis_ext.data.synthetic import SyntheticConfig, make_synthetic
from maskfreevis_ext.data.ytvis import load_ytvis_json


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("videos")
    make_synthetic(
        str(folder), SyntheticConfig(num_train=2, num_val=0, num_frames=3, train_masks=True)
    )
    return load_ytvis_json(
        str(folder / "instances_train_masks.json"), str(folder / "train" / "JPEGImages")
    )


def test_literal_clips_are_those_of_the_mapper(videos: list[dict]) -> None:
    options = ["INPUT.SUPERVISION", "mask", "INPUT.MIN_SIZE_TRAIN", "(64, 80)"]
    cfg = load_config(str(QUICKSTART_CONFIG), options)
    mapper = YTVISDatasetMapper(cfg, True)
    read = _literal(mapper, cfg)
    for seed in range(4):
        np.random.seed(seed)
        ours = mapper(videos[seed % 2])
        np.random.seed(seed)
        literal = read(videos[seed % 2])
        assert torch.equal(torch.stack(ours["image"]), torch.stack(literal["image"]))
        for t, frame in enumerate(literal["instances"]):
            present = ours["tracks"]["ids"][:, t] >= 0
            area = ours["tracks"]["masks"][present, t].sum((1, 2)).sort().values
            of_frame = frame.gt_masks.tensor.sum((1, 2))
            assert torch.equal(of_frame[of_frame > 0].sort().values, area)


def test_reduced_decoding_is_compared_with_the_full_one(videos: list[dict]) -> None:
    options = parse_args(["data", "--rounds", "1"])
    assert decoding_differences(videos[0]["file_names"][0], options) == {}  # no resize


@pytest.mark.slow
def test_report_has_frames_per_second_and_the_share_of_the_quickstart(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    words = ["--height", "720", "--width", "960", "--rounds", "1", "--threads", "1", "--steps", "1"]
    main(["data", *words, "--json", str(file)])
    report = json.loads(file.read_text())
    assert set(report["ratios"]) == set(report["sides"]) - {"literal"}
    details = report["details"]
    assert min(details["frames_per_s"].values()) > 0
    assert details["decoding"]["360"]["scale"] == 2
    assert 0 < details["decoding"]["360"]["mean"] < 10
    assert details["decoding"]["480"]["mean"] == 0
    assert 0 < details["quickstart"]["share"] < 1
