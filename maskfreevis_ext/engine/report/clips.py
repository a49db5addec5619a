"""Predictions beside the truth: best and worst videos, and classes that are taken for others.

Shape letter: C classes.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskfreevis_ext.engine.report.page import html_table, jpeg_source
from maskfreevis_ext.inference.drawing import SheetRow, spread_indices
from maskfreevis_ext.inference.matching import find_matches, objects_by_id
from maskfreevis_ext.inference.result_views import LEGEND, sheet_rows
from maskfreevis_ext.tracks import Prediction

#: Videos that are compared, spread evenly over the data set, so that a report takes seconds.
MAX_VIDEOS = 100
#: Videos that are drawn: as many best as worst.
NUM_DRAWN = 3
_FRAMES_DRAWN = 5
_MOST_CLASSES_OF_MATRIX = 12
_NUM_CONFUSIONS = 15

#: Class of what is not there: a missed object's prediction, an unmatched prediction's object.
NOTHING = -1


@dataclass(frozen=True)
class Clip:
    """A video with its predictions, compared with its objects.

    Attributes:
        video: Dataset dict of ``load_ytvis_json``.
        prediction: The tracks.
        quality: Sum of the IoUs of matched tracks and objects, divided by the mean number of tracks
            and objects, in [0, 1]: the panoptic quality (Kirillov et al., CVPR 2019), classes
            aside. 1 for a video without objects and tracks.
        pairs: (label of the object, label of the track) for every match, missed object and
            unmatched track; ``NOTHING`` for what is not there.
    """

    video: Mapping[str, Any]
    prediction: Prediction
    quality: float
    pairs: Sequence[tuple[int, int]]


def compare(video: Mapping[str, Any], prediction: Prediction) -> Clip:
    """Compare the predictions for a video with its objects.

    Args:
        video: Dataset dict of ``load_ytvis_json``, with its annotations.
        prediction: The tracks.

    Raises:
        DataError: A mask is malformed.
    """
    labels = {
        object_id: next(item["category_id"] for item in frames if item)
        for object_id, frames in objects_by_id(video).items()
    }
    predicted = dict(zip(prediction.numbers, prediction.labels, strict=True))
    matches = find_matches(prediction, video)
    pairs = [(labels[match.object_id], predicted[match.number]) for match in matches]
    found, used = ({getattr(m, name) for m in matches} for name in ("object_id", "number"))
    pairs += [(label, NOTHING) for key, label in labels.items() if key not in found]
    pairs += [(NOTHING, label) for key, label in predicted.items() if key not in used]
    total = (len(labels) + len(predicted)) / 2
    quality = sum(match.iou for match in matches) / total if total else 1.0
    return Clip(video, prediction, quality, pairs)


def clips_html(
    videos: Sequence[Mapping[str, Any]],
    predictions: Mapping[int, Prediction],
    names: Sequence[str],
) -> list[str]:
    """Confusion of classes and pictures; without annotations a few pictures only.

    Args:
        videos: Dataset dicts of ``load_ytvis_json``.
        predictions: Tracks by the id of the video.
        names: Class name of each label.

    Returns:
        HTML parts.

    Raises:
        DataError: A frame or a mask cannot be read.
    """
    chosen = [videos[index] for index in spread_indices(len(videos), MAX_VIDEOS)]
    annotated = [video for video in chosen if any(video["annotations"])]
    if not annotated:
        drawn = [chosen[index] for index in spread_indices(len(chosen), NUM_DRAWN)]
        parts = ["<h2>Predictions</h2>"]
        for video in drawn:
            parts += rows_html(sheet_rows(video, predictions[video["video_id"]], names, 5))
        return parts
    clips = [compare(video, predictions[video["video_id"]]) for video in annotated]
    scope = f"{len(clips)} of {len(videos)} videos" if len(clips) < len(videos) else "all videos"
    clips.sort(key=lambda clip: clip.quality)
    num_worst = min(NUM_DRAWN, (len(clips) + 1) // 2)
    best = clips[::-1][: min(NUM_DRAWN, len(clips) - num_worst)]
    parts = [
        "<h2>Confusion of classes</h2>",
        f'<p class="note">Tracks and objects of {scope}, matched one to one by their IoU over the'
        " video, whatever their classes.</p>",
        confusion_html([pair for clip in clips for pair in clip.pairs], names),
        "<h2>Best and worst videos</h2>",
        f'<p class="note">Of {scope}, by quality: the sum of the IoUs of matched tracks and objects'
        f" over their mean number. {html.escape(LEGEND)}</p>",
    ]
    for title, part in (("Best", best), ("Worst", clips[:num_worst])):
        for place, clip in enumerate(part):
            rows = sheet_rows(clip.video, clip.prediction, names, _FRAMES_DRAWN)
            parts.append(f"<h3>{title} {place + 1}: quality {clip.quality:.2f}</h3>")
            parts += rows_html(rows)
    return parts


def rows_html(rows: Sequence[SheetRow]) -> list[str]:
    """Rows of pictures as strips that scroll together.

    Args:
        rows: The rows, as for a contact sheet.

    Returns:
        HTML parts.
    """
    parts = []
    for row in rows:
        cells = []
        for index, cell in enumerate(row.cells):
            caption = row.captions[index] if index < len(row.captions) else ""
            alt = html.escape(f"{row.title}, {caption}")
            cells.append(
                f'<figure><img alt="{alt}" src="{jpeg_source(cell)}">'
                f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            )
        parts.append(f'<div class="rowname">{html.escape(row.title)}</div>')
        parts.append(f'<div class="strip">{"".join(cells)}</div>')
    return ['<div class="clip">', *parts, "</div>"]


def confusion_html(pairs: Sequence[tuple[int, int]], names: Sequence[str]) -> str:
    """A table of true against predicted classes; of many classes the most frequent mistakes.

    Args:
        pairs: As in ``Clip``.
        names: Class name of each label.
    """
    counts = Counter(pairs)
    if len(names) > _MOST_CLASSES_OF_MATRIX:
        mistakes = [(pair, n) for pair, n in counts.most_common() if pair[0] != pair[1]]
        table = [["object", "predicted as", "count"]]
        for (true, predicted), count in mistakes[:_NUM_CONFUSIONS]:
            table.append([_name(true, names), _name(predicted, names), str(count)])
        right = sum(count for (true, predicted), count in counts.items() if true == predicted)
        return f"<p>{right} of {len(pairs)} with the right class.</p>{html_table(table)}"
    labels = [*range(len(names)), NOTHING]
    largest = max(counts.values(), default=1)
    head = "".join(
        f"<th>{html.escape('missed' if label == NOTHING else names[label])}</th>"
        for label in labels
    )
    lines = []
    for true in labels:
        cells = "".join(
            _count_html(counts[true, predicted], true == predicted, largest) for predicted in labels
        )
        name = "no object" if true == NOTHING else names[true]
        lines.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    return (
        f'<table class="numbers"><thead><tr><th>object \\ predicted</th>{head}</tr></thead>\n'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _name(label: int, names: Sequence[str]) -> str:
    return "nothing" if label == NOTHING else names[label]


def _count_html(count: int, is_right: bool, largest: int) -> str:
    """A cell, the darker the larger: blue where it is right, orange where it is wrong."""
    color = "0, 114, 178" if is_right else "213, 94, 0"
    style = f' style="background: rgba({color}, {0.6 * count / largest:.2f})"' if count else ""
    return f"<td{style}>{count or ''}</td>"
