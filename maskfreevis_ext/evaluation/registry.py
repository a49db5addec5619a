"""Which evaluators a data set gets: by TEST.EVALUATORS, or by its ``evaluator_type``."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils.registry import Registry

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.evaluation.evaluator import YTVISEvaluator
from maskfreevis_ext.evaluation.metrics import MIN_SCORE, TRACK_METRIC_REGISTRY, metric_names

EVALUATOR_REGISTRY = Registry("EVALUATOR")
EVALUATOR_REGISTRY.__doc__ = """
Functions (name of the data set, output folder) -> ``DatasetEvaluator``. The name of a function is
a name in ``TEST.EVALUATORS``, or the ``evaluator_type`` in the metadata of the data sets that it
evaluates.
"""


@EVALUATOR_REGISTRY.register()
def ytvis(dataset_name: str, output_dir: str | None) -> DatasetEvaluator:
    """YouTube-VIS AP and AR of mask tracks."""
    return YTVISEvaluator(dataset_name, output_dir=output_dir)


def evaluator_names(cfg: CfgNode, dataset_name: str) -> list[str]:
    """The evaluators that TEST.EVALUATORS names for a data set; empty if there is none.

    Args:
        cfg: The config.
        dataset_name: One of DATASETS.TEST.

    Raises:
        ConfigError: An entry has an unknown name, or is for a data set that is not tested.
    """
    names = []
    for entry in cfg.TEST.EVALUATORS:
        dataset, _, name = entry.rpartition(":")
        if dataset and dataset not in cfg.DATASETS.TEST:
            raise ConfigError(
                f"TEST.EVALUATORS: {entry!r} is for the data set {dataset!r}, which is not in"
                f" DATASETS.TEST {tuple(cfg.DATASETS.TEST)}."
            )
        _check_name(name, "TEST.EVALUATORS", "")
        if dataset in ("", dataset_name) and name not in names:
            names.append(name)
    return names


def _check_name(name: str | None, where: str, remedy: str) -> None:
    """Refuse a name that no metric and no evaluator has."""
    if name in TRACK_METRIC_REGISTRY or name in EVALUATOR_REGISTRY:
        return
    others = sorted(known for known, _ in EVALUATOR_REGISTRY)
    known = ", ".join([*metric_names(), *others])
    raise ConfigError(f"{where}: expected one of: {known}; got {name!r}.{remedy}")


def build_evaluator(
    dataset_name: str,
    output_dir: str | None = None,
    names: Sequence[str] = (),
    min_score: float = MIN_SCORE,
) -> DatasetEvaluator:
    """The evaluator of a data set.

    All metrics of tracks share one evaluator, which collects the tracks once.

    Args:
        dataset_name: A registered name.
        output_dir: Folder for the predictions; None: no file is written.
        names: What is measured, as ``evaluator_names`` gives it; empty: the ``evaluator_type`` of
            the data set's metadata decides.
        min_score: Least score of a track for metrics that do not rank tracks by their scores.

    Raises:
        ConfigError: A name has no registered evaluator, or the data set has no ``evaluator_type``.
    """
    if not names:
        kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
        _check_name(
            kind,
            f"DATASETS.TEST: metadata 'evaluator_type' of {dataset_name!r}",
            " Register the data set with register_ytvis_instances, or an evaluator in"
            " maskfreevis_ext.evaluation.EVALUATOR_REGISTRY.",
        )
        names = [kind]
    for name in names:
        _check_name(name, "build_evaluator", "")
    metrics = [name for name in names if name in TRACK_METRIC_REGISTRY]
    others = [name for name in names if name not in metrics]
    evaluators = [EVALUATOR_REGISTRY.get(name)(dataset_name, output_dir) for name in others]
    if metrics:
        of_tracks = YTVISEvaluator(
            dataset_name, output_dir=output_dir, metrics=metrics, min_score=min_score
        )
        evaluators.insert(0, of_tracks)
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
