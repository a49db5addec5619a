"""Setting up a run: data sets, output folder, log."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest
import yaml

from maskfreevis_ext.config import load_config
from maskfreevis_ext.data import register_from_config
from maskfreevis_ext.engine.setup import setup_config, validate_datasets
from maskfreevis_ext.errors import ConfigError
from tests.helpers.training import CONFIG, ROOT, TRAIN, tiny_options


def test_unknown_data_set_is_found_before_training():
    cfg = load_config(CONFIG, ["DATASETS.TRAIN", "('ytvis_2019_trian',)"])
    register_from_config(cfg)
    with pytest.raises(ConfigError, match=r"DATASETS\.TRAIN.*ytvis_2019_trian.*ytvis_2019_train"):
        validate_datasets(cfg, training=True)
    validate_datasets(cfg, training=False)


@pytest.mark.parametrize("model", ["R50_bs16", "R101_bs16", "SwinL_bs8"])
def test_joint_configs_name_known_data_sets_and_set_no_key_in_vain(model, caplog):
    path = ROOT / "configs" / "youtubevis_2019" / f"maskfreevis_{model}_joint.yaml"
    with caplog.at_level(logging.WARNING, logger="maskfreevis_ext"):
        cfg = load_config(str(path))
    assert "nothing" not in caplog.text
    validate_datasets(cfg, training=True)


@pytest.mark.parametrize(("key", "training"), [("DATASETS.TRAIN", True), ("DATASETS.TEST", False)])
def test_no_data_set_is_an_error(key, training):
    cfg = load_config(CONFIG, [key, "()"])
    with pytest.raises(ConfigError, match=key):
        validate_datasets(cfg, training=training)


def test_setup_says_first_which_detectron2_runs(tmp_path, tiny_videos):
    options = tiny_options(tiny_videos, tmp_path / "out", "MODEL.DEVICE", "cuda")
    options += ["MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "2.0"]
    args = argparse.Namespace(config_file=CONFIG, opts=options, eval_only=False, device="cpu")
    cfg = setup_config(args)
    assert tuple(cfg.DATASETS.TRAIN) == (TRAIN,)
    lines = Path(cfg.OUTPUT_DIR, "log.txt").read_text().splitlines()
    assert "Detectron2 provider" in lines[0]
    assert sum("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT does nothing" in line for line in lines) == 1
    again = load_config(str(Path(cfg.OUTPUT_DIR, "config.yaml")))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


def test_output_folder_that_cannot_be_made(tmp_path, tiny_videos):
    (tmp_path / "file").write_text("")
    options = tiny_options(tiny_videos, tmp_path / "file" / "out")
    args = argparse.Namespace(config_file=CONFIG, opts=options, eval_only=False, device=None)
    with pytest.raises(ConfigError, match=r"OUTPUT_DIR.*file/out"):
        setup_config(args)


def test_folder_with_a_config_of_the_user_stays_as_it_is(tmp_path, tiny_videos):
    path = tmp_path / "out" / "config.yaml"
    path.parent.mkdir()
    path.write_text(f"_BASE_: {CONFIG}\n")
    options = tiny_options(tiny_videos, path.parent)
    args = argparse.Namespace(config_file=str(path), opts=options, eval_only=True, device=None)
    with pytest.raises(ConfigError, match=rf"this run reads {path}"):
        setup_config(args)
    args.config_file = CONFIG
    with pytest.raises(ConfigError, match=rf"this run would write over {path}"):
        setup_config(args)
    assert path.read_text() == f"_BASE_: {CONFIG}\n"
    assert list(path.parent.iterdir()) == [path]
