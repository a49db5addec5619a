"""One page to look the masks through, the doubtful objects first."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    rows, size, doubtful = [], 0, 0
    for entry in entries:
        size += sum(len(one.data) for one in entry.pictures)
        if rows and size > MOST_BYTES:
            break
        doubtful += entry.is_doubtful
        rows.append(_row(entry, threshold))
    shown = f"{total} objects" if len(rows) == total else f"the first {len(rows)} of {total} objects"
    head = f"{shown}, the least certain first; {doubtful} are doubtful (below {threshold:g})."
    return _PAGE.format(title=html.escape(title), head=html.escape(head), rows="\n".join(rows))


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
        f" {entry.confidence:.2f} <span class=\"note\">{html.escape(entry.sources)}</span>"
        f" {note}<label><input type=\"checkbox\"> correct</label></h2>"
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


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Review of {title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8886; --low: #d33; --on: #28f; }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 0 auto; max-width: 1500px; padding: 0 12px 60vh; }}
header {{ position: sticky; top: 0; background: Canvas; padding: 8px 0; border-bottom: 1px solid var(--line); z-index: 1; }}
h1 {{ font-size: 18px; margin: 0; overflow-wrap: anywhere; }}
header p {{ margin: 2px 0; }}
kbd {{ border: 1px solid var(--line); border-radius: 3px; padding: 0 4px; }}
button {{ font: inherit; }}
section {{ border-left: 5px solid transparent; padding: 2px 8px 6px; margin: 8px 0; outline: none; scroll-margin-top: 130px; }}
section.doubtful {{ border-color: var(--low); }}
section.current {{ background: #28f2; box-shadow: 0 0 0 2px var(--on); }}
h2 {{ font-size: 15px; font-weight: normal; margin: 4px 0; display: flex; flex-wrap: wrap; gap: 2px 10px; align-items: center; }}
h2 label {{ margin-left: auto; }}
meter {{ width: 80px; }}
.video, .note {{ opacity: .75; overflow-wrap: anywhere; }}
.strip {{ display: flex; gap: 6px; overflow-x: auto; }}
figure {{ margin: 0; flex: none; border-bottom: 4px solid transparent; }}
figure.low {{ border-color: var(--low); }}
img {{ display: block; height: 180px; }}
figcaption {{ font-size: 12px; opacity: .8; }}
body.only .fine {{ display: none; }}
#marked {{ overflow-wrap: anywhere; user-select: all; }}
@media (max-width: 600px) {{ img {{ height: 120px; }} .keys {{ display: none; }} }}
</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{head} A red bar marks what is below.</p>
<p class="keys"><kbd>j</kbd> <kbd>k</kbd> or <kbd>&darr;</kbd> <kbd>&uarr;</kbd> next, previous object
&nbsp; <kbd>&larr;</kbd> <kbd>&rarr;</kbd> move the strip &nbsp; <kbd>m</kbd> mark for correction
&nbsp; <kbd>d</kbd> doubtful ones only</p>
<p><button id="only">doubtful ones only</button> marked for correction: <span id="marked">none</span></p>
</header>
<main>
{rows}
</main>
<script>
const all = [...document.querySelectorAll("section")];
let current = -1;
const shown = () => all.filter(one => one.offsetParent !== null);
function show(one) {{
  all.forEach(other => other.classList.toggle("current", other === one));
  if (one) {{ current = all.indexOf(one); one.scrollIntoView({{block: "nearest"}}); one.focus({{preventScroll: true}}); }}
}}
function step(by) {{
  const list = shown();
  if (!list.length) return;
  const place = list.findIndex(one => all.indexOf(one) >= current);
  const now = place < 0 ? list.length - 1 : place;
  const next = current < 0 ? 0 : Math.min(Math.max(now + by, 0), list.length - 1);
  show(list[next]);
}}
function marks() {{
  const ids = all.filter(one => one.querySelector("input").checked).map(one => one.dataset.track);
  document.getElementById("marked").textContent = ids.length ? ids.join(", ") : "none";
}}
function only() {{ document.body.classList.toggle("only"); const list = shown(); if (list.length) show(list[0]); }}
document.getElementById("only").onclick = event => {{ only(); event.target.blur(); }};
document.addEventListener("change", marks);
all.forEach(one => one.addEventListener("click", () => show(one)));
document.addEventListener("keydown", event => {{
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const section = all[current], strip = section && section.querySelector(".strip");
  const actions = {{
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    ArrowLeft: () => strip && strip.scrollBy(-240, 0), ArrowRight: () => strip && strip.scrollBy(240, 0),
    m: () => {{ if (section) {{ const box = section.querySelector("input"); box.checked = !box.checked; marks(); }} }},
    d: only,
  }};
  if (actions[event.key]) {{ event.preventDefault(); actions[event.key](); }}
}});
marks();
</script>
</body>
</html>
"""
