"""Evaluation by class names: a model and a test set may number the same classes differently."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.evaluation import DatasetEvaluator

from maskfreevis_ext.data.categories import categories_by_label
from maskfreevis_ext.data.json_fields import short
from maskfreevis_ext.data.label_spaces import class_table
from maskfreevis_ext.errors import ConfigError

logger = logging.getLogger(__name__)

#: Label in the data set by label of the model.
Table = dict[int, int]


def find_table(dataset_name: str, class_names: Sequence[str] | None) -> Table | None:
    """Which class of a data set each class of a model is, by name.

    Case and punctuation do not matter. Between two public class lists the mapping files of this
    package are used (``data.label_spaces.class_table``).

    Args:
        dataset_name: A registered data set.
        class_names: Names of the model's classes; None: unknown.

    Returns:
        The label in the data set by the label of the model; None where the labels are the same, or
        names are unknown.

    Raises:
        ConfigError: No class of the data set is a class of the model.
        DataError: The annotation file cannot be read.
    """
    names = [category.name for category in categories_by_label(dataset_name).values()]
    if class_names is None or not names:
        return None
    table = class_table(class_names, names)
    if not table:
        raise ConfigError(
            f"DATASETS.TEST: no class of {dataset_name!r}, {short(names)}, is one of the classes"
            f" that the model predicts, {short(list(class_names))}. Take a data set with the same"
            " class names."
        )
    if len(names) == len(class_names) and all(table.get(i) == i for i in range(len(names))):
        return None
    return table


class EvaluatorByName(DatasetEvaluator):
    """An evaluator that gets a model's tracks with the labels of its own data set.

    Args:
        evaluator: Of a data set.
        table: Of ``find_table``; tracks of other classes are left out.
    """

    def __init__(self, evaluator: DatasetEvaluator, table: Mapping[int, int]) -> None:
        self._evaluator, self._table = evaluator, table

    def reset(self) -> None:
        """As the evaluator."""
        self._evaluator.reset()

    def process(self, inputs: list[Any], outputs: list[Any]) -> None:
        """Pass on predictions.

        Args:
            inputs: Batch dicts.
            outputs: For each input, the model's output in eval mode.
        """
        self._evaluator.process(inputs, [relabel(output, self._table) for output in outputs])

    def evaluate(self) -> Any:
        """As the evaluator."""
        return self._evaluator.evaluate()


def relabel(output: Mapping[str, Any], table: Mapping[int, int]) -> dict[str, Any]:
    """Give the tracks of a prediction other labels; tracks of other classes are left out.

    Args:
        output: A model's output in eval mode: ``pred_labels``, and lists or tensors of the same
            length whose names begin with ``pred_``.
        table: The new label by the label.
    """
    labels = [int(label) for label in output["pred_labels"]]
    kept = [i for i, label in enumerate(labels) if label in table]
    changed = dict(output)
    for key, value in output.items():
        if key.startswith("pred_") and len(value) == len(labels):
            changed[key] = [value[i] for i in kept]
    changed["pred_labels"] = [table[labels[i]] for i in kept]
    return changed


def match_classes(
    evaluator: DatasetEvaluator, dataset_name: str, class_names: Sequence[str] | None
) -> DatasetEvaluator:
    """Let an evaluator match a model's classes with those of its data set by name.

    Args:
        evaluator: Of the data set.
        dataset_name: A registered data set.
        class_names: Names of the model's classes; None: unknown, taken by position.

    Returns:
        The evaluator, or a wrapper of it where labels differ.

    Raises:
        ConfigError: No class of the data set is a class of the model.
        DataError: The annotation file cannot be read.
    """
    table = find_table(dataset_name, class_names)
    return evaluator if table is None else EvaluatorByName(evaluator, table)


def check_classes(dataset_name: str, class_names: Sequence[str] | None) -> None:
    """Check that a model knows classes of a data set; the log says how they fit.

    Args:
        dataset_name: A registered data set.
        class_names: Names of the model's classes; None: unknown, and nothing is checked.

    Raises:
        ConfigError: No class of the data set is a class of the model; names both lists.
        DataError: The annotation file cannot be read.
    """
    table = find_table(dataset_name, class_names)
    if table is None:
        return
    names = [category.name for category in categories_by_label(dataset_name).values()]
    unknown = [name for label, name in enumerate(names) if label not in table.values()]
    logger.info(
        "%s: its classes are matched with the model's by name: %d of %d.",
        dataset_name,
        len(names) - len(unknown),
        len(names),
    )
    if unknown:
        logger.warning(
            "%s: the model cannot predict %s; their AP is 0.", dataset_name, short(unknown)
        )
