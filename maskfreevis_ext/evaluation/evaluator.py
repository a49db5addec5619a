"""Detectron2 evaluator for YouTube-VIS data sets: collects tracks, writes them, scores them.

Shape letters: T frames of a video, (h, w) its original size.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import detectron2.utils.comm as comm
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator

from maskfreevis_ext.data.categories import categories_by_label
from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.evaluation.ground_truth import (
    GroundTruth,
    NoMasksError,
    has_annotations,
    read_detections,
    read_ground_truth,
)
from maskfreevis_ext.evaluation.metrics import MIN_SCORE, TRACK_METRIC_REGISTRY, format_scores
from maskfreevis_ext.evaluation.score import Scores
from maskfreevis_ext.exchange import gather_json
from maskfreevis_ext.files import write_json
from maskfreevis_ext.tracks import Prediction, with_category_ids

_NOT_SHOWN = ("AR100",)  # Detectron2's table has the numbers of the official one


class YTVISEvaluator(DatasetEvaluator):
    """Metrics of mask tracks, by default AP and AR of the official YouTube-VIS evaluator.

    Masks are compressed to RLE immediately, to save memory. With several processes each collects
    the results of its videos, and the first process scores all of them.
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        metrics: Sequence[str] = ("ytvis_ap",),
        min_score: float = MIN_SCORE,
    ) -> None:
        """Prepare an evaluation.

        Args:
            dataset_name: A registered data set whose metadata has ``json_file``, its YTVIS
                annotation file.
            distributed: Gather the results of all processes. False: score the results of this
                process only.
            output_dir: Folder for ``results.json``, created if absent; None: no file is written.
            metrics: Names of ``TRACK_METRIC_REGISTRY``.
            min_score: Least score of a track for metrics that do not rank tracks by their scores.

        Raises:
            ConfigError: The data set has no ``json_file``.
        """
        self._logger = logging.getLogger(__name__)
        self._dataset_name = dataset_name
        self._json_file = MetadataCatalog.get(dataset_name).get("json_file")
        if not self._json_file:
            raise ConfigError(
                f"DATASETS.TEST: {dataset_name!r} has no annotation file (metadata 'json_file')."
                " Register the data set as YTVIS JSON before it is evaluated."
            )
        self._distributed = distributed
        self._output_dir = output_dir
        self._metrics = [(name, TRACK_METRIC_REGISTRY.get(name)) for name in metrics]
        self._min_score = min_score
        self._predictions: list[dict[str, Any]] = []

    def reset(self) -> None:
        """Discard the collected tracks."""
        self._predictions = []

    def process(self, inputs: Iterable[Mapping], outputs: Iterable[Mapping]) -> None:
        """Collect the tracks of some videos.

        Args:
            inputs: Batch dicts with ``video_id``.
            outputs: For each input, the model's output in eval mode: ``pred_scores``,
                ``pred_labels`` (contiguous) and ``pred_masks``, bool [T,h,w] each.
        """
        for video, output in zip(inputs, outputs, strict=True):
            prediction = Prediction.from_output(output)
            self._predictions.extend(prediction.results(video["video_id"]))

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Write ``results.json`` and score it.

        Returns:
            Task -> name -> number, in percent, NaN where undefined; for ``ytvis_ap``
            ``{"segm": {AP, AP50, AP75, APs, APm, APl, AR1, AR10, "AP-<class>"...}}``.
            Empty on all processes but the first, and if the annotation file has no masks.

        Raises:
            DataError: The annotation file does not fit the predictions; ``results.json`` has been
                written by then.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            gathered = gather_json(predictions)
            if not comm.is_main_process():
                return OrderedDict()
            predictions = list(itertools.chain.from_iterable(gathered))

        path = self._json_file
        ground_truth = read_json(path)
        results = self._with_dataset_categories(predictions, ground_truth)
        if self._output_dir:
            target = os.path.join(self._output_dir, "results.json")
            write_json(results, target)
            self._logger.info("Wrote %d tracks to %s.", len(results), target)

        truth = self._read_truth(ground_truth)
        if truth is None:
            return OrderedDict()
        if not results:
            self._logger.warning("The model predicted no track: AP is 0.")
        return self._score(truth, results)

    def check_ground_truth(self) -> list[str]:
        """Check that the annotation file can be scored; says so in the log where it has no masks.

        Returns:
            Names of the metrics that ``evaluate`` will give, such as ``segm/AP``.

        Raises:
            DataError: Something in the file cannot be used.
        """
        truth = self._read_truth(read_json(self._json_file))
        if truth is None:
            return []
        nothing = dataclasses.replace(truth, objects=[])  # for the names; measuring takes long
        measured = [metric(nothing, [], self._min_score) for _, metric in self._metrics]
        return [f"{one.task}/{name}" for one in measured for name in _to_detectron2(one)]

    def _read_truth(self, content: Mapping[str, Any]) -> GroundTruth | None:
        """The ground truth; None where it has no masks, which the log says."""
        if not has_annotations(content):
            self._logger.info("%s has no annotations: the results are not scored.", self._json_file)
            return None
        try:
            return read_ground_truth(content, str(self._json_file))
        except NoMasksError:
            self._logger.warning(
                "%s has boxes but no masks: scores of masks cannot be measured. Name a data set"
                " with 'segmentations' in DATASETS.TEST to see them.",
                self._json_file,
            )
            return None

    def _score(
        self, truth: GroundTruth, results: list[dict[str, Any]]
    ) -> OrderedDict[str, dict[str, float]]:
        detections = read_detections(results, truth, "predictions")
        values: OrderedDict[str, dict[str, float]] = OrderedDict()
        for name, metric in self._metrics:
            scores: Scores = metric(truth, detections, self._min_score)
            shown = [each for each in scores.metrics if each not in _NOT_SHOWN]
            table = format_scores(scores, shown)
            self._logger.info("Evaluation results for %s (%s):\n%s", scores.task, name, table)
            values[scores.task] = _to_detectron2(scores)
        return values

    def _with_dataset_categories(
        self, predictions: list[dict[str, Any]], ground_truth: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        categories = categories_by_label(self._dataset_name, ground_truth)
        known = with_category_ids(predictions, {k: each.id for k, each in categories.items()})
        if len(known) < len(predictions):
            self._logger.warning(
                "%d of %d predicted tracks are of classes that are not in %s (it has %d): they"
                " are left out. Does MODEL.SEM_SEG_HEAD.NUM_CLASSES fit the data set?",
                len(predictions) - len(known),
                len(predictions),
                self._json_file,
                len(categories),
            )
        return known


def _to_detectron2(scores: Scores) -> dict[str, float]:
    values = {name: value for name, value in scores.metrics.items() if name not in _NOT_SHOWN}
    values.update({f"{scores.main}-{name}": value for name, value in scores.per_class})
    return values
