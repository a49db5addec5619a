"""Keys of the training: optimizer, schedule, precision, log."""

from __future__ import annotations

from maskfreevis_ext.config.checks import (
    BOOLEAN,
    FRACTION,
    NAME,
    Check,
    above,
    at_least,
    integer,
    list_of,
    one_of,
)
from maskfreevis_ext.config.keys import Key, checked

ROWS: tuple[Key, ...] = (
    Key("SOLVER.OPTIMIZER", "ADAMW", one_of("ADAMW", "SGD"), "The optimizer."),
    Key(
        "SOLVER.BACKBONE_MULTIPLIER",
        0.1,
        at_least(0),
        "Learning rate of the backbone divided by `SOLVER.BASE_LR`.",
    ),
    Key(
        "SOLVER.WEIGHT_DECAY_EMBED",
        0.0,
        at_least(0),
        "Weight decay of the query and level embeddings.",
    ),
    Key(
        "SOLVER.POLY_LR_POWER",
        0.9,
        at_least(0),
        "Exponent of the schedule `WarmupPolyLR`.",
    ),
    Key(
        "SOLVER.POLY_LR_CONSTANT_ENDING",
        0.0,
        FRACTION,
        "The learning rate of `WarmupPolyLR` never falls below this share of `SOLVER.BASE_LR`.",
    ),
    Key(
        "SOLVER.AMP.DTYPE",
        "float16",
        one_of("float16", "bfloat16"),
        "Type of mixed precision (`SOLVER.AMP.ENABLED`, see docs/performance.md). `bfloat16`: on "
        "GPUs, and on CPUs with instructions for it. `float16`: on GPUs only, with a gradient "
        "scaler. On other devices training falls back to float32, with a warning.",
    ),
    Key(
        "SOLVER.ON_NONFINITE",
        "raise",
        one_of("raise", "skip"),
        "After a loss or gradient that is NaN or infinite: `raise` ends the training before the "
        "weights change; `skip` leaves the step out, in all processes, and counts it "
        "(`skipped_steps`), up to 10 in a row and 1 % of all (10 at least). The first such batch "
        "is kept for tools/replay_batch.py.",
    ),
    Key(
        "LOG.ALL_LOSSES",
        False,
        BOOLEAN,
        "Print the losses of all decoder outputs on the console. False: those of the last output "
        "that are not zero. `metrics.json` and TensorBoard always get all.",
    ),
    checked(
        "SEED",
        Check(
            lambda v: isinstance(v, int) and not isinstance(v, bool) and v < 1 << 31,
            "an integer below 2147483648",
        ),
        "Seed of all random numbers; negative: another one in every run.",
    ),
    checked("OUTPUT_DIR", NAME, "Folder of log, checkpoints and results."),
    checked("SOLVER.BASE_LR", above(0), "Learning rate."),
    checked(
        "SOLVER.IMS_PER_BATCH",
        integer(1),
        "Clips per iteration, of all processes together; a multiple of the number of processes.",
    ),
    checked("SOLVER.MAX_ITER", integer(1), "Number of training iterations."),
    checked(
        "SOLVER.STEPS",
        list_of(integer(1), "rising iterations above 0"),
        "Iterations at which the learning rate is multiplied by `SOLVER.GAMMA`.",
    ),
    checked("SOLVER.CHECKPOINT_PERIOD", integer(1), "Iterations between two checkpoints."),
    Key(
        "SOLVER.CHECKPOINT_MAX_TO_KEEP",
        5,
        integer(0),
        "Number of numbered checkpoints of a training that are kept, the newest; 0: all. "
        "`model_final.pth`, `model_best.pth` and files of other trainings are never removed.",
    ),
    checked(
        "SOLVER.LR_SCHEDULER_NAME",
        one_of("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR", "WarmupPolyLR"),
        "Schedule of the learning rate.",
    ),
    checked(
        "SOLVER.WARMUP_METHOD", one_of("linear", "constant"), "How the learning rate warms up."
    ),
    checked(
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        one_of("full_model", "norm", "value"),
        "`full_model`: limit the norm of all gradients together. `norm`: that of each parameter. "
        "`value`: each entry.",
    ),
)
