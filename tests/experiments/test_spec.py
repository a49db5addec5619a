"""The YAML file of an experiment."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from experiments import spec
from experiments.grid import check_configs
from experiments.spec import parse_experiment, read_experiment, with_choice
from maskfreevis_ext.errors import ConfigError
from tests.helpers.training import ROOT

SPECS = sorted((ROOT / "configs" / "experiments").glob("*.yaml"))


def _content(**changes: object) -> dict:
    content = {
        "name": "two",
        "config": "base.yaml",
        "options": {"SOLVER.MAX_ITER": 9},
        "seeds": [4, 5],
        "reference": "a",
        "variants": [
            {"name": "a"},
            {"name": "b", "title": "Bee", "config": "b.yaml", "options": {"VIS_PERIOD": 0}},
        ],
    }
    return {**content, **changes}


def test_examples():
    assert doctest.testmod(spec).failed == 0


def test_variants_take_what_they_do_not_say_from_the_base():
    experiment = parse_experiment(_content(), "here")
    first, second = experiment.variants
    assert (first.title, first.config, first.options) == (
        "a",
        "base.yaml",
        ("SOLVER.MAX_ITER", "9"),
    )
    assert (second.title, second.config) == ("Bee", "b.yaml")
    assert second.options == ("SOLVER.MAX_ITER", "9", "VIS_PERIOD", "0")
    assert experiment.seeds == (4, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../up"}, "name: expected a name of letters"),
        ({"variants": []}, "variants: expected a list of at least one"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "variants: expected different ones"),
        ({"variants": [{"name": "a", "option": {}}]}, r"variants\[0\].* got option"),
        ({"variants": [{"name": "a", "options": [1]}]}, "expected config keys and values"),
        ({"config": None}, r"variants\[0\]: config: expected a config file"),
        ({"seeds": []}, "seeds: expected whole numbers"),
        ({"seeds": [True]}, "seeds: expected whole numbers"),
        ({"seeds": [1, 1]}, "seeds: expected different ones"),
        ({"reference": "c"}, "reference: expected the name of a variant .a, b., got 'c'"),
        ({"options": {"SEED": 3}}, "SEED is set by the grid"),
        ({"options": {"OUTPUT_DIR": "x"}}, "OUTPUT_DIR is set by the grid"),
        ({"colour": 1}, "got colour"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_experiment(_content(**changes), "here")


def test_file_that_is_no_plain_yaml_is_refused(tmp_path):
    path = tmp_path / "one.yaml"
    for text in ("a: [", "!!python/object/apply:os.getcwd []", "just words", "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ConfigError, match=r"one\.yaml"):
            read_experiment(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_experiment(tmp_path / "none.yaml")


def test_command_line_chooses_and_adds():
    experiment = parse_experiment(_content(), "here")
    changed = with_choice(experiment, seeds=[7], only=["b"], options=["A.B", "1"])
    assert [variant.name for variant in changed.variants] == ["b"]
    assert changed.variants[0].options[-2:] == ("A.B", "1")
    assert (changed.seeds, changed.reference) == ((7,), None)
    with pytest.raises(ConfigError, match=r"--only: expected variants of two .a, b., got 'c'"):
        with_choice(experiment, only=["c"])
    with pytest.raises(ConfigError, match="--opts: expected KEY VALUE pairs"):
        with_choice(experiment, options=["A.B"])


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_experiments_of_the_project_have_configs_that_load(path: Path, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = read_experiment(path)
    assert experiment.name == path.stem
    assert all(cfg.SOLVER.MAX_ITER > 0 for cfg in check_configs(experiment))


def test_config_that_cannot_be_used_names_its_variant(monkeypatch):
    monkeypatch.chdir(ROOT)
    content = _content(config="configs/quickstart/maskfreevis_tiny.yaml")
    content["variants"] = [{"name": "typo", "options": {"SOLVER.LR": 1}}]
    with pytest.raises(ConfigError, match=r"variant typo: .*SOLVER\.LR"):
        check_configs(parse_experiment({**content, "reference": None}, "here"))
