#!/usr/bin/env python
r"""Measure how good the hypotheses of a multimask head are, and how well it rates them.

Example (after training with the same config):

    python tools/analyze_multimask.py \
        --config-file configs/multimask/quickstart_multimask.yaml \
        --opts MODEL.WEIGHTS output/quickstart_multimask/model_final.pth

Runs the model on the first data set of DATASETS.TEST, which must have masks, and prints mask AP of
the masks that the model shows, of the ordinary masks alone, and of an oracle that shows the best
hypothesis of each object in each frame; and Spearman's rank correlation of predicted and true IoU.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from scipy.stats import spearmanr
from torch import Tensor
from tqdm import tqdm

from maskfreevis_ext.config import load_config
from maskfreevis_ext.data.loaders import build_test_loader
from maskfreevis_ext.data.track_masks import object_masks
from maskfreevis_ext.engine.arguments import add_device, add_opts, add_overwrite
from maskfreevis_ext.engine.inputs import config_inputs
from maskfreevis_ext.engine.predict import build_predictor, start_log
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.evaluation.evaluator import YTVISEvaluator
from maskfreevis_ext.files import check_outputs, mark_outputs, write_report
from maskfreevis_ext.modeling.heads.multimask import MultimaskHead
from maskfreevis_ext.ops.clip import resize_masks, select_tracks

SHOWN, ORDINARY, ORACLE = "shown by the model", "ordinary masks", "oracle"


@dataclass
class Pairs:
    """Predicted and true IoU of hypotheses, in frames with the object."""

    predicted: list[float]
    true: list[float]

    def correlation(self) -> float:
        """Spearman's rho; NaN where it is not defined."""
        if len(set(self.predicted)) < 2 or len(set(self.true)) < 2:
            return float("nan")
        return float(spearmanr(self.predicted, self.true).statistic)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="YAML")
    add_device(parser)
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    add_overwrite(parser)
    add_opts(parser)
    return parser.parse_args(argv)


def overlaps(masks: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Cells of the intersection and of the union of two sets of masks, frame by frame.

    Args:
        masks: (A, T, H, W), bool.
        others: (G, T, H, W), bool.

    Returns:
        Both (A, G, T), float.
    """
    first, second = (x.flatten(2).transpose(0, 1).float() for x in (masks, others))
    shared = torch.bmm(first, second.transpose(1, 2))  # (T, A, G)
    union = first.sum(-1)[:, :, None] + second.sum(-1)[:, None] - shared
    return shared.permute(1, 2, 0), union.permute(1, 2, 0)


def analyze_video(
    model: torch.nn.Module, sample: dict[str, Any], video: dict[str, Any], pairs: Pairs
) -> dict[str, dict[str, Any]]:
    """Results of one video by kind of mask; adds the best track of each object to ``pairs``."""
    outputs, sizes = model.predict(sample)
    scores, labels, queries = select_tracks(outputs["pred_logits"], model.num_tracks)
    kept, place = queries.unique(return_inverse=True)
    head = model.heads[MultimaskHead.name]
    rated = head.rated_masks(outputs, kept)
    shown = resize_masks(rated.masks, *sizes)
    hypotheses = torch.stack(
        [resize_masks(of_rank, *sizes) for of_rank in rated.logits.unbind(1)], dim=1
    )  # (N, M + 1, T, H, W)
    # The three kinds of masks are empty in the same frames; only the choice differs.
    is_shown = torch.ones(shown.shape[:2], dtype=torch.bool)
    if rated.scores is not None and head.rating.empty_absent:
        is_shown = (rated.scores >= 0).cpu()
    is_shown = is_shown[..., None, None]
    targets = object_masks(video)
    oracle = shown.clone()
    if len(targets):
        shared, union = overlaps(shown, targets)
        track_iou = shared.sum(-1) / union.sum(-1).clamp(min=1)  # (N, G)
        shared, union = overlaps(hypotheses.flatten(0, 1), targets)
        iou = (shared / union.clamp(min=1)).unflatten(0, hypotheses.shape[:2])  # (N, M+1, G, T)
        is_present = targets.flatten(2).any(-1)  # (G, T)
        own = track_iou.argmax(1)
        of_own = iou[torch.arange(len(own)), :, own]  # (N, M + 1, T)
        best = of_own.argmax(1)
        chosen = hypotheses.take_along_dim(best[:, None, :, None, None], 1)[:, 0]
        oracle = chosen & is_shown
        for target, query in enumerate(track_iou.argmax(0).tolist()):
            if own[query] == target:
                frames = is_present[target]
                pairs.true += iou[query, :, target][:, frames].flatten().tolist()
                pairs.predicted += rated.ious[query].cpu()[:, frames].flatten().tolist()
    scores = (scores * rated.factor[place]).tolist()
    return {
        kind: {
            "pred_scores": scores,
            "pred_labels": labels.tolist(),
            "pred_masks": [masks[i] for i in place.tolist()],
        }
        for kind, masks in (
            (SHOWN, shown),
            (ORDINARY, hypotheses[:, 0] & is_shown),
            (ORACLE, oracle),
        )
    }


def analyze(model: torch.nn.Module, loader: Iterator, name: str) -> dict[str, Any]:
    """AP by kind of mask, the rank correlation, and its number of pairs.

    Raises:
        DataError: The data set has no masks to compare with.
    """
    videos = {video["video_id"]: video for video in DatasetCatalog.get(name)}
    evaluators = {
        kind: YTVISEvaluator(name, distributed=False) for kind in (SHOWN, ORDINARY, ORACLE)
    }
    pairs = Pairs([], [])
    for batch in tqdm(loader, desc=name, unit="video", disable=not sys.stderr.isatty()):
        for sample in batch:
            results = analyze_video(model, sample, videos[sample["video_id"]], pairs)
            for kind, result in results.items():
                evaluators[kind].process([sample], [result])
    logging.getLogger("maskfreevis_ext").setLevel(logging.WARNING)
    ap = {kind: evaluator.evaluate().get("segm") for kind, evaluator in evaluators.items()}
    if None in ap.values():
        raise DataError(
            f"{name} has nothing to compare with; name a data set with 'segmentations' in "
            "DATASETS.TEST."
        )
    return {
        "ap": {kind: {key: ap[kind][key] for key in ("AP", "AP50", "AP75")} for kind in ap},
        "rank_correlation": pairs.correlation(),
        "mean_predicted_iou": float(np.mean(pairs.predicted)) if pairs.predicted else float("nan"),
        "mean_true_iou": float(np.mean(pairs.true)) if pairs.true else float("nan"),
        "pairs": len(pairs.true),
    }


def run(args: argparse.Namespace) -> None:
    """Analyze, print, write.

    Raises:
        ConfigError: The model has no multimask head, or the config no data set.
        DataError: The data set or the output file cannot be used.
    """
    start_log()
    cfg = load_config(args.config_file, args.opts, args.device)
    inputs = config_inputs(cfg, args.config_file)
    check_outputs([args.json] if args.json else [], inputs, overwrite=args.overwrite)
    if not cfg.MODEL.MULTIMASK.ENABLED:
        raise ConfigError("MODEL.MULTIMASK.ENABLED: expected True, got False; there is one mask.")
    if not cfg.DATASETS.TEST:
        raise ConfigError("DATASETS.TEST: expected a data set with masks, got none.")
    model = build_predictor(cfg).model
    name = cfg.DATASETS.TEST[0]
    report = analyze(model, build_test_loader(cfg, name), name)
    print(f"{'':20s}      AP    AP50    AP75")
    for kind, values in report["ap"].items():
        print(f"{kind:20s}" + "".join(f"{value:8.2f}" for value in values.values()))
    print(
        f"rank correlation of predicted and true IoU {report['rank_correlation']:.3f}, means "
        f"{report['mean_predicted_iou']:.3f} and {report['mean_true_iou']:.3f} "
        f"({report['pairs']} hypotheses)"
    )
    if args.json:
        write_report(report, args.json)
        mark_outputs([args.json])


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool; exits with code 2 and one line for an error that the user can mend."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    main()
