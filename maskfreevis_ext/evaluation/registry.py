"""Registry of evaluators, by the ``evaluator_type`` of a data set."""

from __future__ import annotations

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.registry import Registry

from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.evaluation.evaluator import YTVISEvaluator

EVALUATOR_REGISTRY = Registry("EVALUATOR")
EVALUATOR_REGISTRY.__doc__ = """
Functions (name of the data set, output folder) -> ``DatasetEvaluator``. The name of a function is
the ``evaluator_type`` in the metadata of the data sets that it evaluates.
"""


@EVALUATOR_REGISTRY.register()
def ytvis(dataset_name: str, output_dir: str | None) -> DatasetEvaluator:
    """YouTube-VIS AP and AR of mask tracks."""
    return YTVISEvaluator(dataset_name, output_dir=output_dir)


def build_evaluator(dataset_name: str, output_dir: str | None = None) -> DatasetEvaluator:
    """The evaluator of a data set, by the ``evaluator_type`` of its metadata.

    Args:
        dataset_name: A registered name.
        output_dir: Folder for the predictions; None: no file is written.

    Raises:
        ConfigError: The data set has no ``evaluator_type``, or one without a registered evaluator.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in EVALUATOR_REGISTRY:
        known = ", ".join(sorted(name for name, _ in EVALUATOR_REGISTRY))
        raise ConfigError(
            f"DATASETS.TEST: expected the metadata 'evaluator_type' of {dataset_name!r} to be one"
            f" of: {known}; got {kind!r}. Register the data set with register_ytvis_instances, or"
            " an evaluator in maskfreevis_ext.evaluation.EVALUATOR_REGISTRY."
        )
    return EVALUATOR_REGISTRY.get(kind)(dataset_name, output_dir)
