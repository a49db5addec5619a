"""What an experiment is: a base config, variants of it, and seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from maskfreevis_ext.config.yaml_check import MAX_BYTES, read_plain_yaml
from maskfreevis_ext.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_KEYS = {"name", "title", "config", "options", "seeds", "reference", "variants"}
_VARIANT_KEYS = {"name", "title", "config", "options"}
#: Keys that the grid sets in every run.
_OWN_OPTIONS = ("SEED", "OUTPUT_DIR")


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: Name of its folder.
        title: What the table calls it.
        config: Config file, as seen from the folder in which the command runs.
        options: Overrides of the config file: KEY, VALUE, KEY, VALUE and so on.
    """

    name: str
    title: str
    config: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """A grid of variants and seeds.

    Attributes:
        name: Name of its folder.
        title: Headline of the report.
        variants: The rows of the table, in this order.
        seeds: Value of SEED of each run of a variant.
        reference: Name of the variant that the others are compared with; None: of none.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    reference: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The content of ``experiment.json``."""
        return asdict(self)


def read_experiment(path: str | Path) -> Experiment:
    """Read an experiment from a YAML file.

    Its keys: ``name``, ``config`` (the config file of variants that name none), ``variants`` (a
    list with ``name``, and optionally ``title``, ``config``, ``options``), ``seeds``, and
    optionally ``title``, ``options`` (overrides of all variants) and ``reference``.

    Args:
        path: The file.

    Returns:
        The experiment.

    Raises:
        ConfigError: The file cannot be read, or something in it does not fit; names the key.
    """
    where = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{where}: expected at most {MAX_BYTES} bytes, got more.")
        content = read_plain_yaml(data.decode(), where)
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: is not UTF-8 text: {error}.") from error
    return parse_experiment(content, where)


def parse_experiment(content: object, where: str) -> Experiment:
    """An experiment from the content of its file.

    Args:
        content: What the YAML file holds.
        where: Name of the file, for messages.

    Raises:
        ConfigError: Something does not fit; names the key.
    """
    fields = _mapping(content, where, _KEYS)
    name = _name(fields.get("name"), f"{where}: name")
    entries = fields.get("variants")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{where}: variants: expected a list of at least one, got {entries!r}.")
    shared = parse_options(fields.get("options"), f"{where}: options")
    variants = []
    for index, entry in enumerate(entries):
        place = f"{where}: variants[{index}]"
        one = _mapping(entry, place, _VARIANT_KEYS)
        variant = _name(one.get("name"), f"{place}: name")
        config = one.get("config", fields.get("config"))
        if not isinstance(config, str) or not config:
            raise ConfigError(f"{place}: config: expected a config file, got {config!r}.")
        options = shared + parse_options(one.get("options"), f"{place}: options")
        variants.append(Variant(variant, str(one.get("title", variant)), config, options))
    experiment = Experiment(
        name=name,
        title=str(fields.get("title", name)),
        variants=tuple(variants),
        seeds=_seeds(fields.get("seeds", [1, 2, 3]), where),
        reference=fields.get("reference"),
    )
    return check_experiment(experiment, where)


def check_experiment(experiment: Experiment, where: str) -> Experiment:
    """Make sure that names differ and that the reference exists.

    Args:
        experiment: The experiment.
        where: Where it comes from, for messages.

    Returns:
        The experiment itself.

    Raises:
        ConfigError: Two variants or seeds are the same, or the reference is no variant.
    """
    names = [variant.name for variant in experiment.variants]
    for what, values in (("variants", names), ("seeds", list(experiment.seeds))):
        if len(set(values)) < len(values):
            raise ConfigError(f"{where}: {what}: expected different ones, got {values}.")
    if experiment.reference is not None and experiment.reference not in names:
        raise ConfigError(
            f"{where}: reference: expected the name of a variant ({', '.join(names)}), got "
            f"{experiment.reference!r}."
        )
    return experiment


def with_choice(
    experiment: Experiment,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
    options: Sequence[str] = (),
) -> Experiment:
    """An experiment with what the command line changes.

    Args:
        experiment: The experiment of the file.
        seeds: Other seeds.
        only: Names of the variants to keep.
        options: Further overrides of all variants: KEY, VALUE and so on.

    Raises:
        ConfigError: There is no variant of a name, or the seeds or overrides do not fit.
    """
    where = experiment.name
    known = {variant.name for variant in experiment.variants}
    for name in only or ():
        if name not in known:
            raise ConfigError(
                f"--only: expected variants of {where} ({', '.join(sorted(known))}), got {name!r}."
            )
    words = parse_words(options, "--opts")
    variants = tuple(
        replace(variant, options=variant.options + words)
        for variant in experiment.variants
        if only is None or variant.name in only
    )
    reference = experiment.reference
    if reference not in {variant.name for variant in variants}:
        reference = None
    changed = replace(
        experiment,
        variants=variants,
        reference=reference,
        seeds=experiment.seeds if seeds is None else _seeds(list(seeds), where),
    )
    return check_experiment(changed, where)


def parse_options(options: object, where: str) -> tuple[str, ...]:
    """Overrides of a YAML mapping as words of a command line.

    Args:
        options: Mapping of config keys (with dots) to values; None: no overrides.
        where: For messages.

    Raises:
        ConfigError: It is no mapping, or sets a key that belongs to the grid.

    >>> parse_options({"SOLVER.MAX_ITER": 100, "DATASETS.TEST": ["val"]}, "here")
    ('SOLVER.MAX_ITER', '100', 'DATASETS.TEST', "['val']")
    """
    if options is None:
        return ()
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where}: expected config keys and values, got {options!r:.80}.")
    words = [word for key, value in options.items() for word in (str(key), str(value))]
    return parse_words(words, where)


def parse_words(words: Sequence[str], where: str) -> tuple[str, ...]:
    """Overrides KEY, VALUE and so on, checked.

    Args:
        words: The words.
        where: For messages.

    Raises:
        ConfigError: Their number is odd, or they set a key that belongs to the grid.
    """
    if len(words) % 2:
        raise ConfigError(f"{where}: expected KEY VALUE pairs, got {len(words)} words.")
    for key in words[::2]:
        if key in _OWN_OPTIONS:
            raise ConfigError(
                f"{where}: {key} is set by the grid in every run. Name seeds by 'seeds' or "
                "--seeds, and the folder by --output."
            )
    return tuple(words)


def _mapping(content: object, where: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: expected keys and values, got {content!r:.80}.")
    unknown = sorted(str(key) for key in content if key not in known)
    if unknown:
        raise ConfigError(
            f"{where}: expected the keys {', '.join(sorted(known))}, got {', '.join(unknown)}."
        )
    return content


def _name(name: object, where: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: expected a name of letters, digits and _ . + -, which becomes the name of a "
            f"folder, got {name!r}."
        )
    return name


def _seeds(seeds: object, where: str) -> tuple[int, ...]:
    numbers = seeds if isinstance(seeds, list) else []
    if not numbers or not all(type(seed) is int and seed >= 0 for seed in numbers):
        raise ConfigError(f"{where}: seeds: expected whole numbers >= 0, got {seeds!r}.")
    return tuple(numbers)
