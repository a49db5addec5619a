"""Keys of the evaluation and of the report."""

from __future__ import annotations

from maskfreevis_ext.config.checks import BOOLEAN, FRACTION, NAME, TEXT, list_of
from maskfreevis_ext.config.keys import Key

ROWS: tuple[Key, ...] = (
    Key(
        "TEST.EVALUATORS",
        [],
        list_of(NAME, 'names, such as "hota" or "my_val:davis_jf"'),
        "What is measured on the data sets of `DATASETS.TEST`: `ytvis_ap` (AP and AR of "
        "YouTube-VIS), `hota`, `idf1`, `davis_jf`, or a registered evaluator. `DATASET:NAME` "
        "measures it on one data set only. Where nothing is named for a data set, its "
        "`evaluator_type` decides, which is YouTube-VIS AP unless it was registered with another.",
    ),
    Key(
        "TEST.MIN_SCORE",
        0.3,
        FRACTION,
        "HOTA, IDF1 and the confusion of classes look at tracks with at least this score. AP ranks "
        "all tracks by their scores.",
    ),
    Key(
        "TEST.BEST_METRIC",
        "",
        TEXT,
        "After each evaluation that raises this metric, the weights are saved as "
        "`model_best.pth`: `segm/AP`, `hota/HOTA`, or `DATASET/segm/AP` where several data sets "
        "are tested. Empty: never.",
    ),
    Key(
        "LOG.REPORT",
        True,
        BOOLEAN,
        "Write `report.html` into `OUTPUT_DIR` at every evaluation and at the end of training: "
        "curves, AP by class, best and worst videos, confusion of classes, settings.",
    ),
)
