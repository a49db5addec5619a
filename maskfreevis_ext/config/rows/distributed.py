"""Keys of a job of several processes."""

from __future__ import annotations

from maskfreevis_ext.config.checks import integer
from maskfreevis_ext.config.keys import Key

ROWS: tuple[Key, ...] = (
    Key(
        "DISTRIBUTED.TIMEOUT",
        600,
        integer(1),
        "Seconds that a process waits for the others; then the job ends, with a message that names "
        "the process that does not answer.",
    ),
)
