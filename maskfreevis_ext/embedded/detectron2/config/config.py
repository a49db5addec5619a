"""``CfgNode`` over fvcore's, the default config, and ``configurable``."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from detectron2.utils.file_io import PathManager
from fvcore.common.config import CfgNode as _FvcoreCfgNode


class CfgNode(_FvcoreCfgNode):
    """fvcore's config node (``_BASE_``, overrides, ``dump``, ``freeze``) with a version check.

    Unlike the real package's, it refuses python tags in YAML unless ``allow_unsafe=True`` is
    written out: a config is data, and reading one must not run code.
    """

    @classmethod
    def _open_cfg(cls, filename: str) -> Any:
        return PathManager.open(filename, "r")

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merge a YAML file, and the files that it names under ``_BASE_``, into this config.

        Args:
            cfg_filename: Path or URL of the file.
            allow_unsafe: Accept (and run) python tags.

        Raises:
            AssertionError: There is no such file, or its VERSION is not the one of this config.
            KeyError: The file has a key that this config lacks.
            yaml.constructor.ConstructorError: The file has a python tag and ``allow_unsafe`` is
            False.
        """
        if not PathManager.isfile(cfg_filename):
            raise AssertionError(f"Config file '{cfg_filename}' does not exist.")
        loaded = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        version = loaded.get("VERSION", None)
        if version is None:
            logging.getLogger(__name__).warning(
                "Config '%s' has no VERSION. It is read as version %s.", cfg_filename, self.VERSION
            )
        elif version != self.VERSION:
            raise AssertionError(
                f"Config '{cfg_filename}' has VERSION {version}, expected {self.VERSION}. "
                "Rename its keys as Detectron2's changelog says."
            )
        self.merge_from_other_cfg(loaded)


def get_cfg() -> CfgNode:
    """A fresh copy of the default config, ``defaults.yaml``."""
    return _defaults().clone()


@functools.cache
def _defaults() -> CfgNode:
    text = Path(__file__).with_name("defaults.yaml").read_text(encoding="utf-8")
    return CfgNode(_with_tuples(yaml.safe_load(text)))


def _with_tuples(tree: dict[str, Any]) -> dict[str, Any]:
    """Turn texts such as "(1, 2)" into tuples, as yacs does with the values of a file."""
    return {
        key: _with_tuples(value) if isinstance(value, dict) else CfgNode._decode_cfg_value(value)
        for key, value in tree.items()
    }


def configurable(
    init_func: Callable | None = None, *, from_config: Callable | None = None
) -> Callable:
    """Let a class or function with explicit arguments be called with a config as well.

    On ``__init__``: the class has a classmethod ``from_config(cls, cfg, ...)`` that returns the
    arguments as a dict. On a function: ``@configurable(from_config=lambda cfg: {...})``. A call
    whose first positional argument, or whose keyword ``cfg``, is a config goes through
    ``from_config``; further keywords override what it returns. Any other call is a plain one.

    Raises:
        AssertionError: It decorates something else, or ``from_config`` is not a function.
    """
    if init_func is not None:
        if not inspect.isfunction(init_func) or init_func.__name__ != "__init__" or from_config:
            raise AssertionError(
                "@configurable alone belongs on __init__; on a function, give it from_config=."
            )
        return _configurable_init(init_func)
    if from_config is None:
        return configurable
    if not inspect.isfunction(from_config):
        raise AssertionError(f"from_config must be a function, got {type(from_config).__name__}.")

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if _has_config(args, kwargs):
                return function(**_explicit_arguments(from_config, args, kwargs))
            return function(*args, **kwargs)

        vars(wrapped)["from_config"] = from_config
        return wrapped

    return decorate


def _configurable_init(init_func: Callable) -> Callable:
    @functools.wraps(init_func)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        from_config = getattr(type(self), "from_config", None)
        if from_config is None:
            raise AttributeError(
                f"{type(self).__name__} uses @configurable and needs a classmethod from_config."
            )
        if not inspect.ismethod(from_config):
            raise TypeError(f"{type(self).__name__}.from_config must be a classmethod.")
        if _has_config(args, kwargs):
            init_func(self, **_explicit_arguments(from_config, args, kwargs))
        else:
            init_func(self, *args, **kwargs)

    return wrapped


def _has_config(args: tuple, kwargs: dict[str, Any]) -> bool:
    candidate = args[0] if args else kwargs.get("cfg")
    return isinstance(candidate, _FvcoreCfgNode) or isinstance(kwargs.get("cfg"), _FvcoreCfgNode)


def _explicit_arguments(
    from_config: Callable, args: tuple, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Ask ``from_config`` for the arguments; keywords it does not know override its answer."""
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"{from_config.__qualname__} must take 'cfg' as its first argument.")
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if any(parameter.kind in variadic for parameter in parameters.values()):
        return from_config(*args, **kwargs)
    known = {name: value for name, value in kwargs.items() if name in parameters}
    explicit = from_config(*args, **known)
    explicit.update({name: value for name, value in kwargs.items() if name not in parameters})
    return explicit
