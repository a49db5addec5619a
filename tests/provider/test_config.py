"""Configs: files, ``_BASE_``, overrides, python tags, ``configurable``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode, configurable, get_cfg

from maskfreevis_ext import _provider
from maskfreevis_ext.config import add_maskfreevis_config


def _flatten(node: CfgNode, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in node.items():
        if isinstance(value, CfgNode):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def test_embedded_defaults_are_those_of_the_provider_in_use() -> None:
    # With the real package, this compares the two; keys that it has gained since are no fault.
    path = _provider.EMBEDDED_ROOT / "detectron2" / "config" / "defaults.yaml"
    embedded = _flatten(CfgNode(yaml.safe_load(path.read_text())))
    for key, value in embedded.items():
        if isinstance(value, str) and value.startswith("("):
            embedded[key] = ast.literal_eval(value)
    provider = _flatten(get_cfg())
    for key, value in embedded.items():
        assert (provider[key], type(provider[key])) == (value, type(value)), key
    assert len(embedded) > 150


def test_get_cfg_gives_independent_copies() -> None:
    cfg = get_cfg()
    cfg.MODEL.PIXEL_MEAN.append(1.0)
    cfg.SOLVER.STEPS = (1,)
    assert len(get_cfg().MODEL.PIXEL_MEAN) == 3
    assert get_cfg().SOLVER.STEPS == (30000,)


def test_file_with_base_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "MODEL: {DEVICE: cpu, MASK_ON: True}\nSEED: 1\nVERSION: 2\n"
    )
    leaf = tmp_path / "leaf.yaml"
    leaf.write_text("_BASE_: base.yaml\nSEED: 5\nSOLVER: {STEPS: [3, 4]}\n")
    cfg = get_cfg()
    cfg.merge_from_file(str(leaf), allow_unsafe=False)
    assert (cfg.MODEL.DEVICE, cfg.MODEL.MASK_ON, cfg.SEED) == ("cpu", True, 5)
    assert cfg.SOLVER.STEPS == (3, 4), "a list from YAML takes the default's type"
    cfg.merge_from_list(["SOLVER.BASE_LR", "0.5", "DATASETS.TRAIN", "('x',)"])
    assert cfg.SOLVER.BASE_LR == 0.5
    assert cfg.DATASETS.TRAIN == ("x",)


def test_dump_loads_again(tmp_path: Path) -> None:
    cfg = get_cfg()
    add_maskfreevis_config(cfg)
    cfg.SEED = 3
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump())
    again = get_cfg()
    add_maskfreevis_config(again)
    again.merge_from_file(str(path), allow_unsafe=False)
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


@pytest.mark.parametrize(
    ("opts", "error"),
    [(["NO.SUCH_KEY", "1"], AssertionError), (["SEED", "'text'"], ValueError)],
)
def test_bad_overrides_are_refused(opts: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        get_cfg().merge_from_list(opts)


def test_unknown_key_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("MODEL: {DEVISE: cpu}\nVERSION: 2\n")
    with pytest.raises(KeyError, match=r"MODEL\.DEVISE"):
        get_cfg().merge_from_file(str(path), allow_unsafe=False)


def test_absent_file_is_an_assertion_error() -> None:
    with pytest.raises(AssertionError, match="no/such/file"):
        get_cfg().merge_from_file("no/such/file.yaml", allow_unsafe=False)


def test_frozen_config_cannot_change() -> None:
    cfg = get_cfg()
    cfg.freeze()
    assert cfg.is_frozen()
    with pytest.raises(AttributeError):
        cfg.SEED = 1
    cfg.defrost()
    cfg.SEED = 1


def test_python_tags_in_yaml_are_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "config.yaml"
    path.write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{marker}']\nVERSION: 2\n")
    with pytest.raises(yaml.constructor.ConstructorError):
        get_cfg().merge_from_file(str(path), allow_unsafe=False)
    assert not marker.exists()


@pytest.mark.skipif(
    _provider.provider_info().name == "real",
    reason="the real package runs python tags unless allow_unsafe=False is given",
)
def test_python_tags_in_yaml_are_refused_by_default(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / "config.yaml"
    path.write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{marker}']\nVERSION: 2\n")
    with pytest.raises(yaml.constructor.ConstructorError):
        get_cfg().merge_from_file(str(path))
    assert not marker.exists()


class _Layer:
    @configurable
    def __init__(self, size: int, *, scale: float = 1.0, name: str = "x") -> None:
        self.values = (size, scale, name)

    @classmethod
    def from_config(cls, cfg: CfgNode, size: int | None = None) -> dict:
        return {"size": cfg.SEED if size is None else size, "scale": 2.0}


def test_configurable_class() -> None:
    cfg = get_cfg()
    cfg.SEED = 7
    assert _Layer(3).values == (3, 1.0, "x")
    assert _Layer(size=3, scale=5.0).values == (3, 5.0, "x")
    assert _Layer(cfg).values == (7, 2.0, "x")
    assert _Layer(cfg=cfg, name="y").values == (7, 2.0, "y")
    assert _Layer(cfg, 9, scale=4.0).values == (9, 4.0, "x")


def test_configurable_function() -> None:
    @configurable(from_config=lambda cfg: {"size": cfg.SEED})
    def build(size: int, factor: int = 1) -> int:
        return size * factor

    cfg = get_cfg()
    cfg.SEED = 4
    assert build(2, factor=3) == 6
    assert build(cfg) == 4
    assert build(cfg, factor=3) == 12


def test_configurable_without_from_config_is_an_error() -> None:
    class Broken:
        @configurable
        def __init__(self, size: int) -> None:
            pass

    with pytest.raises(AttributeError, match="from_config"):
        Broken(get_cfg())
