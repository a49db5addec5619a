"""The rows: one per key, open to extensions, and none that is read by nobody in silence."""

from __future__ import annotations

import logging
import re

import pytest
from detectron2.config import get_cfg

from maskfreevis_ext.config import (
    add_maskfreevis_config,
    default_config,
    keys,
    load_config,
    lookup,
    register_keys,
    registered_keys,
)
from maskfreevis_ext.config.checks import BOOLEAN, above
from maskfreevis_ext.config.keys import FROM_DETECTRON2, Key
from maskfreevis_ext.config.reference import reference_page
from maskfreevis_ext.errors import ConfigError
from tests.helpers.config_reads import read_keys
from tests.helpers.training import CONFIG, ROOT

OURS = [key for key in registered_keys() if key.default is not FROM_DETECTRON2]
MY_LOSS = Key("MODEL.MY_LOSS.WEIGHT", 0.5, above(0), "Weight of `loss_mine`.")


@pytest.fixture
def registry(monkeypatch):
    """The registry of rows, put back at the end."""
    monkeypatch.setattr(keys, "_REGISTRY", dict(keys._REGISTRY))


def test_every_default_passes_its_check_and_has_a_meaning():
    cfg = default_config()
    for key in registered_keys():
        assert key.check.test(lookup(cfg, key.name)), key
        assert bool(key.comment) != bool(key.unread), key.name


def test_keys_of_detectron2_are_there_before_ours():
    plain = get_cfg()
    for key in registered_keys():
        if key.default is FROM_DETECTRON2:
            lookup(plain, key.name)
        else:
            with pytest.raises(ConfigError, match=key.name):
                lookup(plain, key.name)


def test_configs_do_not_share_their_values():
    first = default_config()
    first.MODEL.SWIN.DEPTHS.append(1)
    assert default_config().MODEL.SWIN.DEPTHS == [2, 2, 6, 2]


@pytest.mark.usefixtures("registry")
def test_row_of_an_extension_is_set_checked_and_documented():
    register_keys([MY_LOSS])
    register_keys([MY_LOSS])  # the module is imported again
    assert load_config(CONFIG).MODEL.MY_LOSS.WEIGHT == 0.5
    assert load_config(CONFIG, ["MODEL.MY_LOSS.WEIGHT", "2.0"]).MODEL.MY_LOSS.WEIGHT == 2.0
    with pytest.raises(ConfigError, match=r"MODEL\.MY_LOSS\.WEIGHT.*more than 0.*-1\.0"):
        load_config(CONFIG, ["MODEL.MY_LOSS.WEIGHT", "-1.0"])
    cfg = get_cfg()
    add_maskfreevis_config(cfg)
    assert cfg.MODEL.MY_LOSS.WEIGHT == 0.5
    assert "| `MODEL.MY_LOSS.WEIGHT` | `0.5` | a number, more than 0 |" in reference_page()


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("name", "default", "message"),
    [
        ("MODEL.MASKFREE.PAIRWISE.WEIGHT", True, "taken by the row of MODEL.MASKFREE.PAIRWISE.W"),
        ("MODEL.MASKFREE.PAIRWISE", True, "taken by the row of MODEL.MASKFREE.PAIRWISE"),
        ("MODEL.MASKFREE.LAB_QUANTIZE.MORE", True, "taken by the row of MODEL.MASKFREE.LAB_Q"),
        ("MODEL.my_loss", True, "upper case.*MODEL.my_loss"),
        ("MODEL..X", True, "dotted name"),
        ("MODEL.MY_LOSS.ENABLED", 1, "expected True or False, got the default 1"),
    ],
)
def test_bad_row_is_refused(name, default, message):
    with pytest.raises(ConfigError, match=message):
        register_keys([Key(name, default, BOOLEAN, "A switch.")])


@pytest.mark.usefixtures("registry")
def test_config_made_before_a_registration_says_so():
    cfg = default_config()
    register_keys([MY_LOSS])
    with pytest.raises(ConfigError, match=r"MODEL\.MY_LOSS\.WEIGHT.*no such key"):
        lookup(cfg, MY_LOSS.name)


def test_unread_key_that_is_set_is_reported_once_with_the_reason(caplog):
    options = ["INPUT.MIN_SCALE", "0.2", "INPUT.MAX_SCALE", "3.0", "INPUT.COLOR_AUG_SSD", "True"]
    with caplog.at_level(logging.WARNING, logger="maskfreevis_ext"):
        load_config(CONFIG, options)
    lines = [record.getMessage() for record in caplog.records if "nothing" in record.getMessage()]
    assert len(lines) == 2
    assert "INPUT.COLOR_AUG_SSD does nothing" in lines[0]
    assert "INPUT.MIN_SCALE, INPUT.MAX_SCALE do nothing" in lines[1]
    assert "INPUT.LSJ_AUG" in lines[1]


def test_unread_key_may_have_any_value_and_is_silent_at_its_default(caplog):
    with caplog.at_level(logging.WARNING, logger="maskfreevis_ext"):
        load_config(CONFIG, ["INPUT.COLOR_AUG_SSD", "False"])
        assert "nothing" not in caplog.text
        load_config(CONFIG, ["INPUT.DATASET_MAPPER_NAME", "whatever"])
        assert "INPUT.DATASET_MAPPER_NAME does nothing" in caplog.text


def test_every_key_of_ours_is_read_and_every_unread_one_is_not():
    package = ROOT / "maskfreevis_ext"
    reads = read_keys(package)
    assert not {key.name for key in OURS if not key.unread} - reads
    reads |= read_keys(package / "embedded" / "detectron2")
    assert not {key.name for key in registered_keys() if key.unread} & reads


def test_scan_follows_the_ways_in_which_keys_are_read(tmp_path):
    (tmp_path / "reader.py").write_text(
        """
def read(cfg, other):
    node, weight = cfg.A.B, cfg.A.WEIGHT
    part = node.PART
    other.A.NO
    cfg.A.SET = part.DEEP.removesuffix("x")
    return [node.ITEMS[0], part.LAST]

class Reader:
    def read(self):
        node = self.cfg.C
        return lambda: node.D + self._cfg.E

def elsewhere(node):
    return node.NO
"""
    )
    assert read_keys(tmp_path) - {"A.B", "A.B.PART", "C"} == {
        *("A.WEIGHT", "A.B.PART.DEEP", "A.B.ITEMS", "A.B.PART.LAST", "C.D", "E")
    }


def test_config_knows_nothing_of_what_reads_it():
    for path in (ROOT / "maskfreevis_ext" / "config").rglob("*.py"):
        for module in re.findall(r"(?:from|import) (maskfreevis_ext[\w.]*)", path.read_text()):
            assert re.match(r"maskfreevis_ext\.(config|errors|files|precision)\b", module), (
                path,
                module,
            )


def test_every_key_that_the_package_reads_exists():
    cfg = default_config()
    for name in read_keys(ROOT / "maskfreevis_ext"):
        lookup(cfg, name)
