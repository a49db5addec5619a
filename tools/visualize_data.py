#!/usr/bin/env python3
r"""Draw what training sees: some clips with their boxes, masks, classes and track ids, in one PNG.

Examples (after ``make quickstart``): a JSON file of one's own, and the data set of a config.

    python tools/visualize_data.py --json datasets/quickstart/train.json \
        --images datasets/quickstart/train/JPEGImages --output look.png

    python tools/visualize_data.py --config-file configs/quickstart/maskfreevis_tiny.yaml \
        --output look.png INPUT.SAMPLING_FRAME_NUM 5

Further words are config keys and their values.
"""

from __future__ import annotations

import argparse
import os
import sys

import maskfreevis_ext  # noqa: F401  (picks Detectron2 before anything imports it)

# isort: split
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from maskfreevis_ext.config import default_config, load_config
from maskfreevis_ext.data import (
    YTVISDatasetMapper,
    check_images,
    register_from_config,
    register_ytvis_instances,
)
from maskfreevis_ext.data.loaders import load_datasets
from maskfreevis_ext.data.train_sets import check_supervision
from maskfreevis_ext.engine.user_errors import exit_on_user_error
from maskfreevis_ext.errors import ConfigError
from maskfreevis_ext.files import check_outputs, mark_outputs
from maskfreevis_ext.inference.drawing import SheetRow, contact_sheet, draw_items
from maskfreevis_ext.inference.video_io import check_image_name, write_image
from maskfreevis_ext.tracks import Item, make_label

DATASET_NAME = "visualize_data"  #: Name under which --json is registered.


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="", help="YAML whose INPUT keys are used")
    parser.add_argument("--dataset", help="a registered name (default: DATASETS.TRAIN's first)")
    parser.add_argument("--json", help="an annotation file; with --images, instead of --dataset")
    parser.add_argument("--images", help="the folder that its file_names are relative to")
    parser.add_argument("--output", required=True, help="PNG to write")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that this tool did not make"
    )
    parser.add_argument("--clips", type=int, default=4, help="clips to draw, each of another video")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs of the config")
    return parser.parse_args(argv)


def make_config(args: argparse.Namespace) -> CfgNode:
    """The config of the command line; without a file, masks are drawn where there are any.

    Raises:
        ConfigError: A word of the command line is no key, or a value does not fit its key.
    """
    if args.config_file:
        return load_config(args.config_file, args.opts)
    cfg = default_config()
    try:
        cfg.merge_from_list(["INPUT.FORMAT", "RGB", "INPUT.SUPERVISION", "data", *args.opts])
    except (KeyError, ValueError, AssertionError) as error:
        raise ConfigError(f"The command line: {error}. Expected pairs of KEY VALUE.") from None
    return cfg


def choose_dataset(args: argparse.Namespace, cfg: CfgNode) -> str:
    """Name of the data set to draw, which is registered if it is given by files.

    Raises:
        ConfigError: No data set is named, or only one of --json and --images is given.
    """
    register_from_config(cfg)
    if bool(args.json) != bool(args.images):
        raise ConfigError("--json and --images belong together: give both, or --dataset.")
    if args.json:
        register_ytvis_instances(DATASET_NAME, {}, args.json, args.images)
        return DATASET_NAME
    if not args.dataset and not cfg.DATASETS.TRAIN:
        raise ConfigError("Nothing to draw: give --json and --images, --dataset or --config-file.")
    return args.dataset or cfg.DATASETS.TRAIN[0]


def draw_sample(sample: dict, class_names: list[str], image_format: str) -> SheetRow:
    """One row of the sheet from one sample of the mapper."""
    cells = []
    for image, instances in zip(sample["image"], sample["instances"], strict=True):
        frame = image.permute(1, 2, 0).numpy()
        if image_format == "BGR":
            frame = frame[:, :, ::-1]
        items = []
        for row in np.flatnonzero(instances.gt_ids.numpy() >= 0):
            track = int(instances.gt_ids[row])
            mask = instances.gt_masks.tensor[row].numpy() if instances.has("gt_masks") else None
            label = make_label(class_names[int(instances.gt_classes[row])], track)
            box = tuple(instances.gt_boxes.tensor[row].tolist())
            items.append(Item(track, label, mask, box))
        cells.append(draw_items(np.ascontiguousarray(frame), items))
    captions = [
        f"frame {index} {os.path.basename(name)}"
        for index, name in zip(sample["frame_indices"], sample["file_names"], strict=True)
    ]
    title = f"video {sample['video_id']}, {sample['supervision']} supervision"
    return SheetRow(title, cells, captions)


def run(args: argparse.Namespace) -> None:
    """Write the picture.

    Raises:
        ConfigError: An option cannot be used.
        DataError: The data set cannot be used, or the picture not written.
    """
    inputs = [path for path in (args.config_file, args.json, args.images) if path]
    check_outputs([args.output], inputs, overwrite=args.overwrite)
    check_image_name(args.output)
    cfg = make_config(args)
    name = choose_dataset(args, cfg)
    videos = load_datasets([name], "--dataset")
    check_images(videos)
    check_supervision(cfg.INPUT.SUPERVISION, videos)
    with_objects = [video for video in videos if any(video["annotations"])] or videos
    np.random.seed(args.seed)
    chosen = np.random.permutation(len(with_objects))[: max(args.clips, 1)]
    mapper = YTVISDatasetMapper(cfg, is_train=True)
    class_names = MetadataCatalog.get(name).thing_classes
    rows = [
        draw_sample(mapper(with_objects[index]), class_names, cfg.INPUT.FORMAT)
        for index in sorted(chosen)
    ]
    write_image(args.output, contact_sheet(rows))
    mark_outputs([args.output])
    print(f"{len(rows)} clips of {len(videos)} videos drawn in {args.output}")


def main(argv: list[str] | None = None) -> int:
    """Run the tool; bad input ends with exit code 2 and one message."""
    exit_on_user_error(run, parse_args(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
