"""One page to look the masks through, the doubtful objects first."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from maskfreevis_ext.inference.boxes_to_masks.pictures import Picture

#: Most bytes of pictures on a page.
MOST_BYTES = 60 << 20


@dataclass(frozen=True)
class ReviewEntry:
    """An object on the page.

    Attributes:
        track: Its id.
        video: Name of its video.
        label: Name of its class.
        confidence: In [0, 1].
        is_doubtful: Whether it is below the threshold.
        doubtful_frames: Frames that are.
        sources: What made its masks, with the numbers of frames.
        pictures: Some frames.
    """

    track: int
    video: str
    label: str
    confidence: float
    is_doubtful: bool
    doubtful_frames: Sequence[int]
    sources: str
    pictures: Sequence[Picture]


def review_page(title: str, entries: Iterable[ReviewEntry], total: int, threshold: float) -> str:
    """The page.

    Args:
        title: Name of the annotation file.
        entries: Objects, those to look at first in front; taken until the pictures have 60 MB.
        total: Objects that there are.
        threshold: Confidence below which frames are doubtful.

    Returns:
        HTML that needs no other file.
    """
    rows: list[str] = []
    size = doubtful = 0
    for entry in entries:
        size += sum(len(one.data) for one in entry.pictures)
        if rows and size > MOST_BYTES:
            break
        doubtful += entry.is_doubtful
        rows.append(_row(entry, threshold))
    shown = (
        f"{total} objects" if len(rows) == total else f"the first {len(rows)} of {total} objects"
    )
    head = f"{shown}, the least certain first; {doubtful} are doubtful (below {threshold:g})."
    template = Template((Path(__file__).with_name("review.html")).read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(title), head=html.escape(head), rows="\n".join(rows)
    )


def _row(entry: ReviewEntry, threshold: float) -> str:
    pictures = "".join(_figure(one, threshold) for one in entry.pictures)
    frames = _ranges(entry.doubtful_frames)
    note = f'<span class="note">doubtful frames: {frames}</span>' if frames else ""
    return (
        f'<section tabindex="-1" class="{"doubtful" if entry.is_doubtful else "fine"}"'
        f' data-track="{entry.track}">'
        f"<h2><b>#{entry.track}</b> {html.escape(entry.label)}"
        f' <span class="video">{html.escape(entry.video)}</span>'
        f' <meter min="0" max="1" value="{entry.confidence:.3f}"></meter>'
        f' {entry.confidence:.2f} <span class="note">{html.escape(entry.sources)}</span>'
        f' {note}<label><input type="checkbox"> correct</label></h2>'
        f'<div class="strip">{pictures}</div></section>'
    )


def _figure(picture: Picture, threshold: float) -> str:
    data = base64.b64encode(picture.data).decode("ascii")
    kind = ' class="low"' if picture.confidence < threshold else ""
    return (
        f'<figure{kind}><img loading="lazy" alt="frame {picture.frame}"'
        f' src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{picture.frame}: {picture.confidence:.2f}</figcaption></figure>"
    )


def _ranges(frames: Sequence[int], most: int = 8) -> str:
    """Numbers as text, runs as "3-7"."""
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    texts = [f"{low}" if low == high else f"{low}\u2013{high}" for low, high in runs[:most]]
    return ", ".join(texts) + (", \u2026" if len(runs) > most else "")
