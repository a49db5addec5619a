"""Checks of all frames of a data set before the first iteration, from the headers of the files."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from maskfreevis_ext.data.frame_headers import Header, keep_headers, read_headers
from maskfreevis_ext.data.frame_rules import FrameRules
from maskfreevis_ext.data.pictures import size_fault
from maskfreevis_ext.errors import DataError, first_few
from maskfreevis_ext.exchange import all_gather_json

logger = logging.getLogger(__name__)

#: File of OUTPUT_DIR with the headers that were read.
CACHE_FILE = "frame_headers.json"
#: Fewer new headers than this are not worth a file.
WORTH_KEEPING = 500


def check_frame_files(cfg: CfgNode, videos: Sequence[Mapping[str, Any]], what: str) -> None:
    """Compare the headers of all frames with the annotation file, unless INPUT.CHECK_FRAMES is off.

    Every process reads a share of the files, and all raise the same error.

    Args:
        cfg: The config.
        videos: Dataset dicts.
        what: Name of the data set, for messages.

    Raises:
        DataError: Files are missing, damaged or of another size than the JSON says, or the values
            of deep pixels are refused by INPUT.PIXEL_RANGE. The message has their number and the
            first five.
    """
    if not cfg.INPUT.CHECK_FRAMES:
        return
    cache = os.path.join(cfg.OUTPUT_DIR, CACHE_FILE)
    paths = list(dict.fromkeys(path for video in videos for path in video["file_names"]))
    share = paths[comm.get_rank() :: comm.get_world_size()]
    headers: dict[str, Header] = {}
    sizes = {
        path: (video["width"], video["height"]) for video in videos for path in video["file_names"]
    }
    for part in all_gather_json(read_headers(share, cache, sizes)):
        for path, values in part.items():  # JSON makes lists of tuples
            header = Header(*values)
            headers[path] = header._replace(values=tuple(header.values))
    if comm.is_main_process() and len(headers) >= WORTH_KEEPING and os.path.isdir(cfg.OUTPUT_DIR):
        # Files of another size were not looked at any further.
        known = {p: one for p, one in headers.items() if sorted(one[:2]) == sorted(sizes[p])}
        keep_headers(known, cache)
    rules = FrameRules.from_config(cfg)
    faults = find_faults(videos, headers, rules)
    if faults:
        shown = first_few(faults, separator="; ")
        raise DataError(
            f"{what}: {len(faults)} of {sum(len(video['file_names']) for video in videos)} frames"
            f" cannot be used: {shown}. {_hint(videos, headers, rules)}Replace the files, or remove"
            " the frames from the JSON. (INPUT.CHECK_FRAMES False trains without this check.)"
        )
    for line in describe_frames(headers, rules):
        logger.info("%s: %s", what, line)


def find_faults(
    videos: Sequence[Mapping[str, Any]], headers: Mapping[str, Header], rules: FrameRules
) -> list[str]:
    """A text for every frame that cannot be used, with its file.

    Args:
        videos: Dataset dicts.
        headers: Header of each file.
        rules: What is done with EXIF orientations and deep pixels.
    """
    faults = []
    for video in videos:
        expected = video["height"], video["width"]
        for t, path in enumerate(video["file_names"]):
            header = headers[path]
            fault = header.fault or _depth_fault(header, rules)
            width, height = header.size(rules)
            fault = fault or size_fault(expected, height, width)
            if fault:
                faults.append(f"{path} (video {video['video_id']}, frame {t}): {fault}")
    return faults


def _depth_fault(header: Header, rules: FrameRules) -> str:
    """Why the values of deep pixels are refused; empty if they are not."""
    if not header.values or rules.pixel_range:
        return ""
    high = 1.0 if header.depth.startswith("float") else 65535.0
    least, most = header.values
    if 0 <= least and most <= high:
        return ""
    return (
        f"expected {header.depth} values in 0..{high:g}, got {least:g}..{most:g}; set"
        " INPUT.PIXEL_RANGE to what is black and white in all videos"
    )


def _hint(
    videos: Sequence[Mapping[str, Any]], headers: Mapping[str, Header], rules: FrameRules
) -> str:
    """Says when the other value of INPUT.EXIF would make all sizes fit; otherwise empty."""
    other = FrameRules("ignore" if rules.exif == "apply" else "apply", rules.pixel_range)
    if find_faults(videos, headers, other):
        return ""
    return f"All frames fit with INPUT.EXIF {other.exif}: the annotations were drawn on those. "


def describe_frames(headers: Mapping[str, Header], rules: FrameRules) -> list[str]:
    """What is done with frames that are not plain 8-bit pictures, in a line per kind.

    Args:
        headers: Header of each file.
        rules: What is done with EXIF orientations and deep pixels.
    """
    lines = []
    turned = sum(header.orientation != 1 for header in headers.values())
    if turned:
        done = "turned upright" if rules.exif == "apply" else "taken as they are stored"
        lines.append(
            f"{turned} of {len(headers)} frames have an EXIF orientation and are {done}"
            f" (INPUT.EXIF {rules.exif})."
        )
    depths = Counter(header.depth for header in headers.values() if header.values)
    for depth, count in sorted(depths.items()):
        ranges = [header.values for header in headers.values() if header.depth == depth]
        least, most = min(low for low, _ in ranges), max(high for _, high in ranges)
        default = (0.0, 1.0) if depth.startswith("float") else (0.0, 65535.0)
        low, high = rules.pixel_range or default
        line = (
            f"{count} of {len(headers)} frames have {depth} pixels, {least:g}..{most:g}; {low:g} is"
            f" black and {high:g} white (INPUT.PIXEL_RANGE)."
        )
        if most - low < (high - low) / 8:
            line += f" They will be nearly black: is INPUT.PIXEL_RANGE [{least:g}, {most:g}] meant?"
        lines.append(line)
    return lines
