"""Keys of image files and weights files: how they are read and what is checked before the work."""

from __future__ import annotations

from maskfreevis_ext.config.checks import BOOLEAN, Check, above, at_least, integer, list_of, one_of
from maskfreevis_ext.config.keys import Key

_TWO_NUMBERS = list_of(at_least(-float(2**53)), "numbers", length=2)

ROWS: tuple[Key, ...] = (
    Key(
        "INPUT.CHECK_FRAMES",
        True,
        BOOLEAN,
        "Read the headers of all frames of the training and test sets before the first iteration: "
        "sizes, truncated files, EXIF orientations, bits per channel. What was read stays in "
        "`OUTPUT_DIR/frame_headers.json`, and files that have not changed are not read again.",
    ),
    Key(
        "INPUT.EXIF",
        "apply",
        one_of("apply", "ignore"),
        "`apply`: turn frames as their EXIF orientation says, as Detectron2 does. `ignore`: take "
        "the pixels as they are stored, for annotations that were drawn on them so.",
    ),
    Key(
        "INPUT.PIXEL_RANGE",
        [],
        Check(
            lambda v: (
                isinstance(v, (list, tuple))
                and (len(v) == 0 or (_TWO_NUMBERS.test(v) and above(v[0]).test(v[1])))
            ),
            "an empty list, or a list of 2 numbers, black < white",
        ),
        "Values that become black and white in images of more than 8 bits per channel; values "
        "beyond are clipped. Empty: 0 and 65535 of whole numbers, 0 and 1 of floating-point "
        "numbers, and values beyond are refused. 12-bit pictures in 16-bit files need [0, 4095].",
    ),
    Key(
        "INPUT.REDUCED_DECODING",
        False,
        BOOLEAN,
        "Decode JPEG frames at 1/2, 1/4 or 1/8 of their size where the resize that follows leaves "
        "no more, and nothing is cropped before it. Pixels differ by a few grey levels "
        "(docs/performance.md).",
    ),
    Key(
        "DATALOADER.TIMEOUT",
        120,
        integer(0),
        "Longest time to wait for a batch of the worker processes, seconds; then the error names "
        "the workers that are late, and what they are reading. 0: wait for ever.",
    ),
    Key(
        "DATALOADER.ON_BAD_SAMPLE",
        "raise",
        one_of("raise", "skip"),
        "What a training does with a sample whose files cannot be read. `raise`: end with the "
        "error. `skip`: take another sample of the data set, which one follows from `SEED` and the "
        "position alone, and count it in the metric `data/bad_samples`; the run ends when more "
        "than 1 % of its samples, and more than 10, were bad. Evaluations always end.",
    ),
    Key(
        "TEST.PARTIAL_WEIGHTS",
        False,
        BOOLEAN,
        "Evaluate and predict also with weights that fit the model only in part. Otherwise such "
        "weights are an error that lists what is missing.",
    ),
)
