"""Pictures of a results file: an mp4 per video, and a sheet of predictions and ground truth."""

from __future__ import annotations

import logging
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pycocotools.mask as coco_mask
from tqdm import tqdm

from maskfreevis_ext.data.mappers import read_frame
from maskfreevis_ext.data.rle import is_finite_number, segmentation_to_rle
from maskfreevis_ext.data.ytvis import load_ytvis_json, read_json
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.inference.video_io import FrameWriter, write_image
from maskfreevis_ext.inference.visualize import (
    Item,
    SheetRow,
    contact_sheet,
    draw_items,
    make_label,
    resize_frame,
    spread_indices,
)

_MIN_SIDE = 240  # pixels; smaller videos are enlarged, or their labels could not be read

logger = logging.getLogger(__name__)


@dataclass
class ResultViews:
    """Files that ``write_result_views`` made.

    Attributes:
        videos: One per video.
        sheet: The contact sheet.
    """

    videos: list[Path] = field(default_factory=list)
    sheet: Path | None = None


@dataclass(frozen=True)
class _Track:
    track_id: int
    label: str
    segmentations: Sequence[Any]


def write_result_views(
    json_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    results: list[Mapping[str, Any]],
    output_dir: str | os.PathLike[str],
    *,
    min_score: float = 0.3,
    max_videos: int | None = None,
    sheet_videos: int = 8,
    columns: int = 6,
    fps: float = 10.0,
    results_name: str = "results",
) -> ResultViews:
    """Draw the tracks of a results file on the frames of their data set.

    Args:
        json_file: YTVIS annotation file of the data set; masks, boxes or neither.
        image_root: Folder that its file names are relative to.
        results: Content of a ``results.json``.
        output_dir: Gets ``video_<id>.mp4`` and ``contact_sheet.png``; made when absent.
        min_score: Tracks with a lower score are left out.
        max_videos: Draw only the first of the data set's videos, by id; None draws all.
        sheet_videos: Videos on the contact sheet, spread over those that are drawn.
        columns: Frames of each video on the sheet.
        fps: Frames per second of the videos.
        results_name: File name for messages.

    Returns:
        The files.

    Raises:
        DataError: A file cannot be used, or the results do not fit the data set.
    """
    videos = load_ytvis_json(os.fspath(json_file), os.fspath(image_root))[:max_videos]
    categories = read_json(os.fspath(json_file))["categories"]
    names = {category["id"]: category["name"] for category in categories}
    tracks = _tracks_by_video(results, videos, names, min_score, results_name)
    if not any(tracks.values()):
        logger.warning(
            "%s: no track has a score of %g or more: nothing is drawn.", results_name, min_score
        )
    views = ResultViews()
    output = Path(output_dir)
    on_sheet = {videos[index]["video_id"] for index in spread_indices(len(videos), sheet_videos)}
    rows: list[SheetRow] = []
    for video in tqdm(videos, desc="drawing", unit="video"):
        found = tracks[video["video_id"]]
        with FrameWriter(output / f"video_{video['video_id']}.mp4", fps) as writer:
            for frame, items in _drawn_frames(video, found, range(video["length"])):
                enlarged = resize_frame(
                    frame, items, max(1, math.ceil(_MIN_SIDE / min(frame.shape[:2])))
                )
                writer.write(draw_items(*enlarged))
        views.videos.append(writer.path)
        if video["video_id"] in on_sheet:
            rows.extend(_sheet_rows(video, found, list(names.values()), columns))
    if rows:
        views.sheet = output / "contact_sheet.png"
        write_image(views.sheet, contact_sheet(rows))
    return views


def _tracks_by_video(
    results: list[Mapping[str, Any]],
    videos: list[dict[str, Any]],
    names: Mapping[int, str],
    min_score: float,
    results_name: str,
) -> dict[int, list[_Track]]:
    """Tracks of each video, the surest first and numbered from 1."""
    lengths = {video["video_id"]: video["length"] for video in videos}
    found: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for index, result in enumerate(results):
        where = f"{results_name}: results[{index}]"
        if not isinstance(result, Mapping):
            raise DataError(f"{where}: expected an object, got a {type(result).__name__}.")
        video_id, masks = result.get("video_id"), result.get("segmentations")
        if not is_finite_number(result.get("score")):
            raise DataError(
                f"{where}: expected score to be a finite number, got {result.get('score')!r}."
            )
        if video_id not in lengths or result["score"] < min_score:
            continue
        if result.get("category_id") not in names:
            raise DataError(
                f"{where}: category_id {result.get('category_id')!r} is not in the annotation file."
            )
        if not isinstance(masks, list) or len(masks) != lengths[video_id]:
            got = (
                f"{len(masks)} entries" if isinstance(masks, list) else f"a {type(masks).__name__}"
            )
            raise DataError(
                f"{where}: expected segmentations to have {lengths[video_id]} entries, one per"
                " frame of video"
                f" {video_id}, got {got}. The results belong to another version of the data set."
            )
        found[video_id].append(result)
    tracks: dict[int, list[_Track]] = defaultdict(list)
    for video_id, entries in found.items():
        entries.sort(key=lambda entry: -entry["score"])
        tracks[video_id] = [
            _Track(
                rank,
                make_label(names[entry["category_id"]], rank, entry["score"]),
                entry["segmentations"],
            )
            for rank, entry in enumerate(entries, start=1)
        ]
    return tracks


def _drawn_frames(
    video: Mapping[str, Any], tracks: Sequence[_Track], indices: Iterable[int]
) -> Iterator[tuple[Any, list[Item]]]:
    """Frames and their predicted objects, the surest object last (on top)."""
    for index in indices:
        items = []
        for track in reversed(tracks):
            where = (
                f"results: video {video['video_id']}, track {track.label}, segmentations[{index}]"
            )
            rle, area, _ = segmentation_to_rle(
                track.segmentations[index], video["height"], video["width"], where
            )
            if area:
                items.append(Item(track.track_id, track.label, coco_mask.decode(rle).astype(bool)))
        yield read_frame(video, index, "RGB"), items


def _sheet_rows(
    video: Mapping[str, Any],
    tracks: Sequence[_Track],
    names: Sequence[str],
    columns: int,
    height: int = 180,
) -> list[SheetRow]:
    """A row of predictions and, where the data set has annotations, one of the ground truth."""
    indices = spread_indices(video["length"], columns)
    captions = [f"frame {index}" for index in indices]
    title = f"video {video['video_id']} ({Path(video['file_names'][0]).parent.name})"
    predicted, true = [], []
    for index, (frame, items) in zip(indices, _drawn_frames(video, tracks, indices), strict=True):
        factor = height / frame.shape[0]
        predicted.append(draw_items(*resize_frame(frame, items, factor)))
        objects = _annotated_items(video, index, names)
        true.append(draw_items(*resize_frame(frame, objects, factor)))
    rows = [SheetRow(f"{title}: prediction", predicted, captions)]
    if any(video["annotations"]):
        rows.append(SheetRow(f"{title}: ground truth", true, captions))
    return rows


def _annotated_items(video: Mapping[str, Any], index: int, names: Sequence[str]) -> list[Item]:
    items = []
    for annotation in video["annotations"][index]:
        rle = annotation.get("segmentation")
        x, y, width, height = annotation["bbox"]
        items.append(
            Item(
                annotation["id"],
                make_label(names[annotation["category_id"]], annotation["id"]),
                mask=None if rle is None else coco_mask.decode(rle).astype(bool),
                box=(x, y, x + width, y + height) if rle is None else None,
            )
        )
    return items
