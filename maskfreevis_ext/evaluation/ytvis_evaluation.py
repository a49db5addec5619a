"""Detectron2 evaluator for YouTube-VIS data sets: collects tracks, writes them, reports AP.

Shape letters: T frames of a video, (h, w) its original size.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import detectron2.utils.comm as comm
import numpy as np
import pycocotools.mask as coco_mask
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from tabulate import tabulate

from maskfreevis_ext.data.ytvis import read_json
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.evaluation.ytvis_eval import (
    Scores,
    has_annotations,
    is_box_only,
    score,
)
from maskfreevis_ext.files import write_json

#: What Detectron2's tables show of ``ytvis_eval.METRICS``.
SHOWN_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10")


class YTVISEvaluator(DatasetEvaluator):
    """Mask AP and AR of tracks, as the official YouTube-VIS evaluator measures them.

    Masks are stored as compressed RLE as soon as they come, so that memory stays small. With
    several processes each collects its share, and the first one scores all.
    """

    def __init__(
        self, dataset_name: str, distributed: bool = True, output_dir: str | None = None
    ) -> None:
        """Prepare an evaluation.

        Args:
            dataset_name: A registered data set whose metadata has ``json_file``, its YTVIS
                annotation file.
            distributed: Gather the results of all processes. False: score those of this process
                only.
            output_dir: Folder for ``results.json`` (made when absent); None writes no file.

        Raises:
            ConfigError: The data set has no ``json_file``.
        """
        self._logger = logging.getLogger(__name__)
        self._metadata = MetadataCatalog.get(dataset_name)
        if not self._metadata.get("json_file"):
            raise ConfigError(
                f"DATASETS.TEST: {dataset_name!r} has no annotation file (metadata 'json_file')."
                " Register the data set as YTVIS JSON before it is evaluated."
            )
        self._distributed = distributed
        self._output_dir = output_dir
        self._predictions: list[dict[str, Any]] = []

    def reset(self) -> None:
        """Forget what was collected."""
        self._predictions = []

    def process(self, inputs: Iterable[Mapping], outputs: Iterable[Mapping]) -> None:
        """Collect the tracks of some videos.

        Args:
            inputs: Batch dicts with ``video_id``.
            outputs: For each, what the model gives in eval mode: ``pred_scores``, ``pred_labels``
                (contiguous) and ``pred_masks``, bool [T,h,w] each.
        """
        for video, output in zip(inputs, outputs, strict=True):
            self._predictions.extend(tracks_to_results(video["video_id"], output))

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Write ``results.json`` and score it.

        Returns:
            ``{"segm": {AP, AP50, AP75, APs, APm, APl, AR1, AR10, "AP-<class>"...}}`` in percent,
            NaN where undefined. Empty on all processes but the first, and where the annotation file
            has no masks to compare with.

        Raises:
            DataError: The annotation file does not fit the predictions; ``results.json`` is written
                before.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            gathered = comm.gather(predictions, dst=0)
            if not comm.is_main_process():
                return OrderedDict()
            predictions = list(itertools.chain.from_iterable(gathered))

        path = self._metadata.json_file
        ground_truth = read_json(path)
        results = self._with_dataset_categories(predictions, ground_truth)
        if self._output_dir:
            target = os.path.join(self._output_dir, "results.json")
            write_results(results, target)
            self._logger.info("Wrote %d tracks to %s.", len(results), target)

        if not has_annotations(ground_truth):
            self._logger.info("%s has no annotations: the results are not scored.", path)
            return OrderedDict()
        if is_box_only(ground_truth):
            self._logger.warning(
                "%s has boxes but no masks: mask AP cannot be measured. Name a data set with"
                " 'segmentations' in"
                " DATASETS.TEST to see it.",
                path,
            )
            return OrderedDict()
        if not results:
            self._logger.warning("The model predicted no track: AP is 0.")
        scores = score(
            ground_truth, results, ground_truth_name=str(path), results_name="predictions"
        )
        self._logger.info("Evaluation results for segm:\n%s", format_scores(scores, SHOWN_METRICS))
        return OrderedDict(segm=_to_detectron2(scores))

    def _with_dataset_categories(
        self, predictions: list[dict[str, Any]], ground_truth: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        to_contiguous = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if to_contiguous:
            to_dataset = {label: category_id for category_id, label in to_contiguous.items()}
        else:
            ids = sorted(category["id"] for category in ground_truth.get("categories", []))
            to_dataset = dict(enumerate(ids))
        known = [entry for entry in predictions if entry["category_id"] in to_dataset]
        if len(known) < len(predictions):
            self._logger.warning(
                "%d of %d predicted tracks are of classes that %s does not have (it has %d): they"
                " are left out. Does"
                " MODEL.SEM_SEG_HEAD.NUM_CLASSES fit the data set?",
                len(predictions) - len(known),
                len(predictions),
                self._metadata.json_file,
                len(to_dataset),
            )
        return [entry | {"category_id": to_dataset[entry["category_id"]]} for entry in known]


def tracks_to_results(video_id: int, output: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turn a model's output for one video into entries of a results file.

    Args:
        video_id: Id of the video in the annotation file.
        output: ``pred_scores`` (floats), ``pred_labels`` (ints) and ``pred_masks`` (bool [T,h,w]
            each).

    Returns:
        One dict per track: video_id, score, category_id (the label as it is) and segmentations (T
        compressed RLEs).
    """
    tracks = zip(output["pred_scores"], output["pred_labels"], output["pred_masks"], strict=True)
    return [
        {
            "video_id": video_id,
            "score": float(value),
            "category_id": int(label),
            "segmentations": encode_masks(masks),
        }
        for value, label, masks in tracks
    ]


def encode_masks(masks: torch.Tensor | np.ndarray) -> list[dict[str, Any]]:
    """Encode the masks of a track.

    Args:
        masks: Bool [T,h,w].

    Returns:
        T compressed RLEs with counts as str. Empty masks are encoded too.
    """
    columns = (
        torch.as_tensor(masks).to(device="cpu", dtype=torch.uint8).transpose(1, 2).contiguous()
    )
    encoded = coco_mask.encode(columns.numpy().transpose(2, 1, 0))  # (h, w, T), column-major
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")} for rle in encoded]


def write_results(results: list[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write a results file whole or not at all.

    Args:
        results: Entries of ``tracks_to_results`` with category ids of the data set.
        path: The file; its folder is made when absent. A file of that name is replaced at the end.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    write_json(results, path)


def format_scores(scores: Scores, names: Iterable[str]) -> str:
    """Two text tables: the named metrics, and AP per class. In percent.

    Args:
        scores: The numbers.
        names: Metrics to show.
    """
    names = list(names)
    overall = tabulate(
        [[scores.metrics[name] for name in names]],
        headers=names,
        tablefmt="pipe",
        floatfmt=".3f",
        numalign="center",
    )
    columns = 3 if len(scores.per_class) > 3 else 1
    rows = [
        list(itertools.chain.from_iterable(scores.per_class[start : start + columns]))
        for start in range(0, len(scores.per_class), columns)
    ]
    per_class = tabulate(rows, headers=["class", "AP"] * columns, tablefmt="pipe", floatfmt=".3f")
    return f"{overall}\n\nAP per class:\n{per_class}"


def _to_detectron2(scores: Scores) -> dict[str, float]:
    values = {name: scores.metrics[name] for name in SHOWN_METRICS}
    values.update({f"AP-{name}": value for name, value in scores.per_class})
    return values
