"""From a YAML file and overrides to a checked, frozen config."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Sequence

import torch
from detectron2.config import CfgNode, get_cfg

from maskfreevis_ext.config.checks import shorten
from maskfreevis_ext.config.keys import add_maskfreevis_config, report_unread_keys
from maskfreevis_ext.config.validate import validate
from maskfreevis_ext.config.yaml_check import MAX_DIGITS, MAX_TEXT, check_yaml_file
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.precision import why_no_amp

logger = logging.getLogger(__name__)

_MISMATCH = re.compile(
    r"Type mismatch \(<class '(\w+)'> vs\. <class '(\w+)'>\) with values \((.*)\) "
    r"for config key: (\S+)",
    re.DOTALL,
)

_LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-FxXoO_.]*")


def default_config() -> CfgNode:
    """Every key of Detectron2 and of this project, with its default."""
    cfg = get_cfg()
    add_maskfreevis_config(cfg)
    return cfg


def load_config(config_file: str, opts: Sequence[str] = (), device: str | None = None) -> CfgNode:
    """Read a config file and overrides into a checked, frozen config.

    Keys that nothing reads are allowed; a warning says which were set, and why they do nothing.

    Args:
        config_file: A YAML file; "" for the defaults alone.
        opts: Overrides, KEY VALUE KEY VALUE and so on.
        device: Overrides MODEL.DEVICE.

    Returns:
        The config. MODEL.DEVICE is "cpu" where it named a GPU and there is none. Mixed precision
        is off where the device is not made for its type.

    Raises:
        ConfigError: A file, a key or a value cannot be used; names it, and says what was expected.
    """
    cfg = default_config()
    if config_file:
        check_yaml_file(config_file)
        _merge(cfg, lambda: cfg.merge_from_file(config_file, allow_unsafe=False), config_file)
    merge_overrides(cfg, opts)
    if device:
        cfg.MODEL.DEVICE = device
    validate(cfg)
    _fit_to_device(cfg)
    report_unread_keys(cfg, default_config())
    cfg.freeze()
    return cfg


def merge_overrides(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Put overrides of a command line into a config; they are read as literals, never run.

    Args:
        cfg: The config to change.
        opts: KEY VALUE KEY VALUE and so on.

    Raises:
        ConfigError: A word is missing, a key unknown, or a value too long or of another type.
    """
    if len(opts) % 2:
        raise ConfigError(
            "Overrides: expected KEY VALUE pairs, got an odd number of words: "
            f"{shorten(' '.join(map(str, opts)))}."
        )
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        if not isinstance(value, str):
            continue
        is_number = _LONG_NUMBER.fullmatch(value) is not None
        limit, kind = (MAX_DIGITS, "digits") if is_number else (MAX_TEXT, "characters")
        if len(value) > limit:
            raise ConfigError(
                f"the command line: {shorten(key)}: expected at most {limit} {kind}, got "
                f"{len(value)}: {value[:20]}..."
            )
    _merge(cfg, lambda: cfg.merge_from_list(list(opts)), "the command line")


def _merge(cfg: CfgNode, merge: Callable[[], object], source: str) -> None:
    """Run a merge of yacs and turn its errors into ones that name source, key and remedy."""
    try:
        merge()
    except (RecursionError, MemoryError):  # of Python's own parser of literals
        raise ConfigError(f"{source}: a value has too many brackets or signs in a row.") from None
    except (KeyError, ValueError, TypeError, AssertionError) as e:
        text = str(e.args[0]) if e.args else str(e)
        unknown = re.match(r"Non-existent (?:config )?key: (\S+)", text)
        mismatch = _MISMATCH.match(text)
        if mismatch:
            expected, got, values, key = mismatch.groups()
            default, _, value = values.partition(" vs. ")
            raise ConfigError(
                f"{source}: {key}: expected a value of type {expected}, such as {default}, "
                f"got {shorten(value)} ({got})."
            ) from None
        if unknown is None:
            raise ConfigError(f"{source}: {shorten(text, 500)}") from None
        near = difflib.get_close_matches(unknown[1], _all_keys(cfg), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(
            f"{source}: there is no config key {shorten(unknown[1])}.{hint}"
        ) from None


def _all_keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for name, value in node.items():
        keys.append(prefix + name)
        if isinstance(value, CfgNode):
            keys.extend(_all_keys(value, f"{prefix}{name}."))
    return keys


def _fit_to_device(cfg: CfgNode) -> None:
    """Change the keys that the device cannot serve, with a warning for each."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.warning(
            "MODEL.DEVICE is %s, but PyTorch sees no GPU: running on the CPU.", cfg.MODEL.DEVICE
        )
        cfg.MODEL.DEVICE = "cpu"
    device = cfg.MODEL.DEVICE
    reason = why_no_amp(cfg.SOLVER.AMP.DTYPE, device) if cfg.SOLVER.AMP.ENABLED else ""
    if reason:
        logger.warning(
            "SOLVER.AMP.DTYPE %s: %s. Training in float32 on %s.",
            *(cfg.SOLVER.AMP.DTYPE, reason, device),
        )
        cfg.SOLVER.AMP.ENABLED = False
    reason = why_no_amp(cfg.TEST.AMP, device) if cfg.TEST.AMP != "off" else ""
    if reason:
        logger.warning("TEST.AMP %s: %s. Predicting in float32.", cfg.TEST.AMP, reason)
        cfg.TEST.AMP = "off"
