"""The report on a data set: lines of text, and one HTML page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskfreevis_ext.data.images import read_video_frame
from maskfreevis_ext.data.track_statistics import DataStatistics, Suspicion
from maskfreevis_ext.engine.data_report.clips import LEGEND, SeenClip, Signals, clip_rows
from maskfreevis_ext.engine.report.clips import rows_html
from maskfreevis_ext.engine.report.page import html_page, html_table
from maskfreevis_ext.engine.report.svg import bar_chart
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.files import AnyPath, atomic_write
from maskfreevis_ext.inference.drawing import SheetRow, draw_items, resize_frame
from maskfreevis_ext.tracks import Item, make_label

_NUM_LISTED = 40  # suspicions in the table
_NUM_PICTURED = 6
_NUM_PRINTED = 5
_MOST_BINS = 16
_PICTURE_HEIGHT = 240


def report_lines(
    statistics: DataStatistics,
    signals: Signals,
    num_clips: int,
    class_names: Sequence[str],
) -> list[str]:
    """The report in lines of text.

    Args:
        statistics: Of the data set.
        signals: Of the clips that were looked at.
        num_clips: Their number.
        class_names: Name of each label.
    """
    lines = [_facts(statistics)]
    for label, count in statistics.tracks.most_common():
        boxes = statistics.objects[label]
        lines.append(f"  {class_names[label]}: {count} tracks, {boxes} boxes")
    if statistics.sides:
        low, middle, high = np.percentile(statistics.sides, (5, 50, 95))
        lines.append(
            f"Box sizes (square root of the area): {low:.0f}, {middle:.0f}, {high:.0f} pixels at 5,"
            " 50, 95 %."
        )
    lines += [f"In {num_clips} clips, {line}" for line in signals.lines()]
    lines += [f"Problem: {text}" for text in statistics.problems]
    lines += [f"Note: {text}" for text in statistics.notes]
    suspicions = statistics.suspicions
    if suspicions:
        lines.append(f"{len(suspicions)} places to look at:")
        lines += [f"  {_place(one)}: {one.text}" for one in suspicions[:_NUM_PRINTED]]
        if len(suspicions) > _NUM_PRINTED:
            lines.append("  ... (all of them with --html)")
    return lines


def _facts(statistics: DataStatistics) -> str:
    total = sum(statistics.objects.values())
    facts = [
        f"{statistics.num_videos} videos",
        f"{statistics.num_frames} frames",
        f"{len(statistics.track_lengths)} tracks",
        f"{total} boxes",
        f"{statistics.num_masks} masks",
    ]
    if statistics.num_crowds:
        facts.append(f"{statistics.num_crowds} crowds, which are not trained on")
    return ", ".join(facts) + "."


def _place(one: Suspicion) -> str:
    frames = "-".join(map(str, one.frames))
    return f"video {one.video_id}, track {one.track_id}, frame {frames}"


def write_page(
    path: AnyPath,
    title: str,
    videos: Sequence[Mapping[str, Any]],
    statistics: DataStatistics,
    clips: Sequence[SeenClip],
    signals: tuple[Signals, int],
    class_names: Sequence[str],
) -> None:
    """Write the report as one HTML page, which loads nothing from elsewhere.

    Args:
        path: The file; it is replaced at the end.
        title: Heading.
        videos: Dataset dicts.
        statistics: Of the data set.
        clips: Clips to draw.
        signals: Sum over the clips that were looked at, and their number.
        class_names: Name of each label.

    Raises:
        OSError: The file cannot be written.
    """
    total, num_clips = signals
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="facts">{html.escape(_facts(statistics))}</p>',
        *_problems_html(statistics),
        *_objects_html(statistics, class_names),
        "<h2>What supervises the masks</h2>",
        f"<p>Of {num_clips} random clips after the augmentations of the config:</p>",
        *(f"<p>{html.escape(line)}</p>" for line in total.lines()),
        '<p class="note">Cells are 4 x 4 pixels of the training size. Few colour edges mean strong'
        " texture; few matches mean fast motion or changes of light: masks then follow from the"
        " boxes alone.</p>",
        "<h2>Clips as the model sees them</h2>",
        f'<p class="note">{html.escape(LEGEND)}</p>',
    ]
    for clip in clips:
        body += rows_html(clip_rows(clip, class_names))
    body += _suspicions_html(videos, statistics.suspicions, class_names)
    with atomic_write(path) as file:
        file.write(html_page(title, body).encode())


def _problems_html(statistics: DataStatistics) -> list[str]:
    parts = ["<h2>Problems</h2>"]
    if not statistics.problems:
        parts.append("<p>None found.</p>")
    items = "".join(f"<li>{html.escape(text)}</li>" for text in statistics.problems)
    parts.append(f"<ul>{items}</ul>" if items else "")
    return parts + [f'<p class="note">{html.escape(text)}</p>' for text in statistics.notes]


def _objects_html(statistics: DataStatistics, class_names: Sequence[str]) -> list[str]:
    total = sum(statistics.objects.values())
    if not total:
        return ["<h2>Objects</h2>", "<p>There are none.</p>"]
    table = [["class", "tracks", "boxes", "share of boxes"]]
    for label, name in enumerate(class_names):
        boxes = statistics.objects[label]
        row = [name, str(statistics.tracks[label]), str(boxes), f"{100 * boxes / total:.1f} %"]
        table.append(row)
    charts = [
        bar_chart("Frames of a track", _whole_bins(statistics.track_lengths)),
        bar_chart("Box size, pixels (square root of the area)", _size_bins(statistics.sides)),
        bar_chart("Box size, share of the frame (%)", _share_bins(statistics.shares)),
    ]
    return [
        "<h2>Objects</h2>",
        html_table(table),
        f'<div class="charts">{"".join(charts)}</div>',
    ]


def _whole_bins(values: Sequence[int]) -> list[tuple[str, int]]:
    width = max(1, -(-max(values) // _MOST_BINS))
    counts = np.bincount([(value - 1) // width for value in values])
    return [
        (str(i * width + 1) if width == 1 else f"{i * width + 1}-{(i + 1) * width}", int(count))
        for i, count in enumerate(counts)
    ]


def _size_bins(sides: Sequence[float]) -> list[tuple[str, int]]:
    """Bins that double: below 8 pixels, 8 to 16, ..."""
    powers = [min(max(int(np.log2(max(side, 1.0))), 2), 11) for side in sides]
    counts = np.bincount(powers, minlength=12)[2:]
    names = ["<8", *(f"{2**power}+" for power in range(3, 12))]
    return [(name, int(count)) for name, count in zip(names, counts, strict=True)]


def _share_bins(shares: Sequence[float]) -> list[tuple[str, int]]:
    counts, _ = np.histogram(shares, bins=10, range=(0.0, 1.0))
    return [(f"{10 * i}-{10 * (i + 1)}", int(count)) for i, count in enumerate(counts)]


def _suspicions_html(
    videos: Sequence[Mapping[str, Any]],
    suspicions: Sequence[Suspicion],
    class_names: Sequence[str],
) -> list[str]:
    if not suspicions:
        return ["<h2>Tracks to look at</h2>", "<p>None: no jumps, no sudden sizes, no doubles.</p>"]
    shown = suspicions[:_NUM_LISTED]
    table = [["where", "what"], *([_place(one), one.text] for one in shown)]
    rest = len(suspicions) - len(shown)
    by_id = {video["video_id"]: video for video in videos}
    parts = ["<h2>Tracks to look at</h2>", html_table(table, "text")]
    if rest:
        parts.append(f'<p class="note">... and {rest} more.</p>')
    for one in shown[:_NUM_PICTURED]:
        row = _suspicion_row(by_id[one.video_id], one, class_names)
        parts += rows_html([row]) if row else []
    return parts


def _suspicion_row(
    video: Mapping[str, Any], one: Suspicion, class_names: Sequence[str]
) -> SheetRow | None:
    """The frames of a suspicion with the box of its track; None if a frame cannot be read."""
    cells = []
    try:
        for t in one.frames:
            frame = read_video_frame(video, t, "RGB")
            items = []
            for item in video["annotations"][t]:
                if item["id"] == one.track_id:
                    x, y, width, height = item["bbox"]
                    label = make_label(class_names[item["category_id"]], one.track_id)
                    items.append(Item(one.track_id, label, None, (x, y, x + width, y + height)))
            factor = max(1.0, _PICTURE_HEIGHT / frame.shape[0])
            cells.append(draw_items(*resize_frame(frame, items, factor)))
    except DataError:
        return None
    return SheetRow(f"{_place(one)}: {one.text}", cells, [f"frame {t}" for t in one.frames])
