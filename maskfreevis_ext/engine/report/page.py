"""HTML pages in one file: style and pictures are inside, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import cv2
import numpy as np

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; max-width: 76rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem;
     border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p.note, figcaption, .facts { color: #555; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
.text th, .text td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.text td { min-width: 8rem; }
@media (min-width: 60rem) { .text td:first-child { white-space: nowrap; } }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
.beside table { margin: .4rem 0; max-width: 100%; }
figure { margin: 2rem 0; } img { max-width: 100%; }
pre { overflow-x: auto; background: #f6f6f6; padding: .8rem; font-size: 13px; line-height: 1.35; }
code { font-size: .92em; overflow-wrap: anywhere; }
summary { cursor: pointer; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr));
          gap: 1rem 1.5rem; }
.chart { margin: 0; } .chart svg { width: 100%; height: auto; display: block; }
.chart figcaption { font-weight: 600; color: #222; font-size: .9rem; overflow-wrap: anywhere; }
.chart figcaption span { font-weight: 400; margin-left: .8rem; white-space: nowrap; }
.chart figcaption i { display: inline-block; width: .8em; height: .8em; margin-right: .3em; }
.chart text { font-size: 11px; fill: #555; } .chart .grid { stroke: #e4e4e4; stroke-width: 1; }
.chart polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.clip { overflow-x: auto; padding-bottom: .4rem; }
.strip { display: flex; gap: 6px; width: max-content; }
.strip figure { margin: 0; flex: none; }
.strip img { display: block; max-width: none; height: 150px; }
.strip figcaption { font-size: .8rem; }
.rowname { font-size: .85rem; margin: .3rem 0 .1rem; color: #555; position: sticky; left: 0;
           width: fit-content; }
"""


def html_page(title: str, body: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: Plain text.
        body: HTML of its parts.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def html_table(table: Sequence[Sequence[str]], kind: str = "numbers") -> str:
    """A table.

    Args:
        table: Heading and lines, as plain text; what stands between backquotes is code.
        kind: "numbers": all columns but the first are set to the right. "text": all to the left.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        shown = (_html_cell(cell) for cell in cells)
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in shown) + "</tr>"

    body = "\n".join(line(row, "td") for row in table[1:])
    head = line(table[0], "th")
    return f'<table class="{kind}"><thead>{head}</thead>\n<tbody>{body}</tbody></table>'


def _html_cell(text: str) -> str:
    if len(text) > 1 and text.startswith("`") and text.endswith("`"):
        return f"<code>{html.escape(text[1:-1])}</code>"
    return html.escape(text)


def jpeg_source(picture: np.ndarray, quality: int = 82) -> str:
    """A picture as the ``src`` of an ``img`` element.

    Args:
        picture: RGB uint8 [H,W,3].
        quality: Of the JPEG, 1..100.
    """
    bgr = np.ascontiguousarray(picture[..., ::-1])
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
