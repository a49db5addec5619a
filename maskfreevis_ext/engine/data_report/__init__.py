"""Looks at a data set before it is trained on: pictures, numbers, places to look at."""

from maskfreevis_ext.engine.data_report.clips import (
    LEGEND,
    SeenClip,
    Signals,
    clip_rows,
    draw_matches,
    look_at,
)
from maskfreevis_ext.engine.data_report.page import report_lines, write_page

__all__ = [
    "LEGEND",
    "SeenClip",
    "Signals",
    "clip_rows",
    "draw_matches",
    "look_at",
    "report_lines",
    "write_page",
]
