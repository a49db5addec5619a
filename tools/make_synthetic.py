#!/usr/bin/env python3
r"""Write a small generated YouTube-VIS data set: boxes only in train, boxes and masks in val.

Examples:
    python tools/make_synthetic.py --output datasets/synthetic --num-train 20 --num-val 4
    python tools/make_synthetic.py --output datasets/level2 --level 2 --train-masks

Levels of difficulty; each adds to the one before:
    0  textured shapes (circle, triangle, star), a hue for each class, a dull ground
    1  surfaces of procedural noise, clutter without annotation, a slowly moving camera, more change
       of scale and rotation, more objects that enter and leave; the hue still tells the class
    2  surfaces from photographs: only the form tells the class; ellipses, rings, thin triangles,
       stars of four and six tips; occluders; the camera pans, zooms and turns; motion blur
    3  most objects in the texture and colour of the ground; thin rings and stars, holes in all
       classes; more occlusion, faster motion, longer blur
Levels 2 and 3 take the photographs of scikit-image: pip install 'maskfreevis_ext[synthetic]'.

To train on it, name its files in the config key ``INPUT.DATASETS``; see datasets/README.md.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence

from maskfreevis_ext.data.synthetic import MAX_LEVEL, SyntheticConfig, make_synthetic
from maskfreevis_ext.engine.arguments import add_overwrite
from maskfreevis_ext.engine.user_errors import exit_on_user_error

_DEFAULTS = SyntheticConfig()


def _pair(separator: str, names: str) -> Callable[[str], tuple[int, int]]:
    """Parser of an option that holds two whole numbers."""

    def parse(text: str) -> tuple[int, int]:
        match = re.fullmatch(rf"(\d+){separator}(\d+)", text.strip())
        if match is None:
            raise argparse.ArgumentTypeError(f"expected {names}, got {text!r}")
        return int(match[1]), int(match[2])

    return parse


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, help="folder to write to")
    add_overwrite(parser)
    parser.add_argument(
        "--level",
        type=int,
        choices=range(MAX_LEVEL + 1),
        default=_DEFAULTS.level,
        help=f"difficulty, see above (default {_DEFAULTS.level})",
    )
    parser.add_argument("--num-train", type=int, default=_DEFAULTS.num_train)
    parser.add_argument("--num-val", type=int, default=_DEFAULTS.num_val)
    parser.add_argument(
        "--frames", type=int, default=_DEFAULTS.num_frames, help="frames of each video"
    )
    parser.add_argument(
        "--size",
        type=_pair("[xX]", "HxW, for example 96x128"),
        default=(_DEFAULTS.height, _DEFAULTS.width),
        help=f"HxW in pixels (default {_DEFAULTS.height}x{_DEFAULTS.width})",
    )
    parser.add_argument(
        "--objects",
        type=_pair("-", "MIN-MAX, for example 1-3"),
        default=(_DEFAULTS.min_objects, _DEFAULTS.max_objects),
        help="MIN-MAX objects of a video "
        f"(default {_DEFAULTS.min_objects}-{_DEFAULTS.max_objects})",
    )
    parser.add_argument("--seed", type=int, default=_DEFAULTS.seed)
    parser.add_argument("--format", choices=("jpg", "png"), default=_DEFAULTS.image_format)
    parser.add_argument(
        "--train-masks",
        action="store_true",
        help="also write instances_train_masks.json, for the comparison with mask supervision",
    )
    parser.add_argument(
        "--mask-fraction",
        type=float,
        default=_DEFAULTS.mask_fraction,
        help="also write instances_train_mixed.json, in which this share of the videos has masks",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Write the data set and say where it is.

    Raises:
        ConfigError: A number is out of its range, or a package is missing.
        DataError: A file cannot be written, or would replace one that this tool did not make.
    """
    start = time.perf_counter()
    config = SyntheticConfig(
        level=args.level,
        num_train=args.num_train,
        num_val=args.num_val,
        num_frames=args.frames,
        height=args.size[0],
        width=args.size[1],
        min_objects=args.objects[0],
        max_objects=args.objects[1],
        seed=args.seed,
        image_format=args.format,
        train_masks=args.train_masks,
        mask_fraction=args.mask_fraction,
    )
    paths = make_synthetic(args.output, config, overwrite=args.overwrite)
    seconds = time.perf_counter() - start
    print(f"{config.num_train} + {config.num_val} videos in {seconds:.1f} s")
    for name, path in paths.items():
        print(f"  {name}: {path}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool; exits with code 2 and one line for a bad option."""
    exit_on_user_error(run, parse_args(argv))


if __name__ == "__main__":
    main()
