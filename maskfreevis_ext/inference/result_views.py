"""Pictures of a results file: an mp4 per video, and a sheet of predictions and ground truth."""

from __future__ import annotations

import logging
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from maskfreevis_ext.data.categories import Category, categories_of_file
from maskfreevis_ext.data.images import read_video_frame
from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import DataError
from maskfreevis_ext.files import check_outputs, mark_outputs
from maskfreevis_ext.inference.drawing import (
    SheetRow,
    color_of,
    contact_sheet,
    draw_items,
    resize_frame,
    spread_indices,
)
from maskfreevis_ext.inference.matching import MIN_IOU, match_objects, objects_by_id
from maskfreevis_ext.inference.video_io import FrameWriter, write_image
from maskfreevis_ext.rle import decode_rle, is_finite_number
from maskfreevis_ext.tracks import Item, Prediction, RleMasks, make_label

_MIN_SIDE = 240  # pixels; smaller videos are enlarged, so that their labels are readable
SHEET_HEIGHT = 180  # pixels of a frame on the sheet
_UNMATCHED = (255, 255, 255)  # white, which is no object's colour
LEGEND = (
    f"A prediction has the colour of the object that it matches (IoU over the video >= {MIN_IOU:g},"
    " one to one); '!= name' is the object's class where the predicted one is wrong. White outline:"
    " a prediction that matches no object. Outline and 'missed': an object that no prediction"
    " matches."
)

logger = logging.getLogger(__name__)


@dataclass
class ResultViews:
    """Files written by ``write_result_views``.

    Attributes:
        videos: The mp4 file of each video.
        sheet: The contact sheet.
    """

    videos: list[Path] = field(default_factory=list)
    sheet: Path | None = None


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
    overwrite: bool = False,
) -> ResultViews:
    """Draw the tracks of a results file on the frames of their data set.

    Args:
        json_file: YTVIS annotation file of the data set; masks, boxes or neither.
        image_root: Folder that its file names are relative to.
        results: Content of a ``results.json``.
        output_dir: Folder for ``video_<id>.mp4`` and ``contact_sheet.png``; created if absent.
        min_score: Tracks with a lower score are left out.
        max_videos: Draw only the first of the data set's videos, by id; None draws all.
        sheet_videos: Number of videos on the contact sheet, spread evenly over the drawn ones.
        columns: Number of frames of each video on the sheet.
        fps: Frames per second of the videos.
        results_name: File name for messages; if there is such a file, it is an input.
        overwrite: Whether files of other origin may be replaced.

    Returns:
        The files.

    Raises:
        DataError: A file cannot be used or replaced, or the results do not fit the data set.
    """
    videos = load_ytvis_json(os.fspath(json_file), os.fspath(image_root))[:max_videos]
    categories = categories_of_file(read_json(os.fspath(json_file)))
    names = [category.name for category in categories.values()]
    predictions = read_predictions(results, videos, categories, min_score, results_name)
    if not any(map(len, predictions.values())):
        logger.warning("%s: no track has a score of %g or more.", results_name, min_score)
    sheet_file = Path(output_dir) / "contact_sheet.png"
    targets = [sheet_file.with_name(f"video_{video['video_id']}.mp4") for video in videos]
    inputs = [json_file, image_root, *filter(os.path.isfile, [results_name])]
    check_outputs([*targets, sheet_file], inputs, overwrite=overwrite)
    views = ResultViews()
    on_sheet = {videos[index]["video_id"] for index in spread_indices(len(videos), sheet_videos)}
    rows: list[SheetRow] = []
    for video, target in zip(tqdm(videos, "drawing", unit="video"), targets, strict=True):
        prediction = predictions[video["video_id"]]
        _write_video(video, prediction, names, target, fps)
        views.videos.append(target)
        if video["video_id"] in on_sheet:
            rows.extend(sheet_rows(video, prediction, names, columns))
    if rows:
        views.sheet = sheet_file
        legend = LEGEND if any(any(video["annotations"]) for video in videos) else ""
        write_image(sheet_file, contact_sheet(rows, SHEET_HEIGHT, legend))
    mark_outputs([*views.videos, sheet_file])
    return views


def _write_video(
    video: Mapping[str, Any],
    prediction: Prediction,
    names: Sequence[str],
    target: Path,
    fps: float,
) -> None:
    """Draw one video; small frames are enlarged."""
    with FrameWriter(target, fps) as writer:
        for frame, items in _drawn_frames(video, prediction, names, range(video["length"])):
            factor = max(1, math.ceil(_MIN_SIDE / min(frame.shape[:2])))
            writer.write(draw_items(*resize_frame(frame, items, factor)))


def read_predictions(
    results: list[Mapping[str, Any]],
    videos: list[dict[str, Any]],
    categories: Mapping[int, Category],
    min_score: float,
    results_name: str,
) -> dict[int, Prediction]:
    """The tracks of each video that have at least ``min_score``.

    Args:
        results: Content of a ``results.json``.
        videos: Dataset dicts of ``load_ytvis_json``.
        categories: Categories of the annotation file by label.
        min_score: Tracks with a lower score are left out.
        results_name: File name for messages.

    Returns:
        The tracks by the id of the video, for all videos.

    Raises:
        DataError: An entry cannot be used, or does not fit its video.
    """
    by_id = {video["video_id"]: video for video in videos}
    labels = {category.id: label for label, category in categories.items()}
    found: dict[int, list[tuple[float, int, RleMasks]]] = defaultdict(list)
    for index, result in enumerate(results):
        where = f"{results_name}: results[{index}]"
        if not isinstance(result, Mapping):
            raise DataError(f"{where}: expected an object, got a {type(result).__name__}.")
        score, masks = result.get("score"), result.get("segmentations")
        if score is None or not is_finite_number(score):
            raise DataError(f"{where}: expected score to be a finite number, got {score!r}.")
        video = by_id.get(result.get("video_id", -1))
        if video is None or score < min_score:
            continue
        category_id = result.get("category_id")
        if category_id not in labels:
            raise DataError(f"{where}: category_id {category_id!r} is not in the annotation file.")
        length = video["length"]
        if not isinstance(masks, list) or len(masks) != length:
            kind = type(masks).__name__
            got = f"{len(masks)} entries" if isinstance(masks, list) else f"a {kind}"
            raise DataError(
                f"{where}: expected segmentations to have {length} entries, one per frame of video"
                f" {video['video_id']}, got {got}. The results belong to another version of the"
                " data set."
            )
        tracks = RleMasks(masks, (video["height"], video["width"]), where)
        found[video["video_id"]].append((score, labels[category_id], tracks))
    return {
        video_id: Prediction.sort(
            [score for score, _, _ in found[video_id]],
            [label for _, label, _ in found[video_id]],
            [masks for _, _, masks in found[video_id]],
        )
        for video_id in by_id
    }


def _drawn_frames(
    video: Mapping[str, Any],
    prediction: Prediction,
    names: Sequence[str],
    indices: Iterable[int],
) -> Iterator[tuple[np.ndarray, list[Item]]]:
    """Frames and their predicted objects."""
    for index in indices:
        yield read_video_frame(video, index, "RGB"), prediction.items(index, names)


def sheet_rows(
    video: Mapping[str, Any], prediction: Prediction, names: Sequence[str], columns: int
) -> list[SheetRow]:
    """A row of predictions and, where the data set has annotations, one of the ground truth.

    Args:
        video: Dataset dict of ``load_ytvis_json``.
        prediction: The tracks that are drawn.
        names: Class name of each label.
        columns: Number of frames.

    Raises:
        DataError: A frame or a mask cannot be read.
    """
    indices = spread_indices(video["length"], columns)
    captions = [f"frame {index}" for index in indices]
    title = f"video {video['video_id']} ({Path(video['file_names'][0]).parent.name})"
    comparison = _compare(video, prediction, names) if any(video["annotations"]) else None
    predicted, true = [], []
    for index, (frame, items) in zip(
        indices, _drawn_frames(video, prediction, names, indices), strict=True
    ):
        factor = SHEET_HEIGHT / frame.shape[0]
        if comparison is not None:
            items = [_mark(item, comparison) for item in items]
            objects = _annotated_items(video["annotations"][index], names, comparison.missed)
            true.append(draw_items(*resize_frame(frame, objects, factor)))
        predicted.append(draw_items(*resize_frame(frame, items, factor)))
    if comparison is None:
        return [SheetRow(f"{title}: prediction", predicted, captions)]
    found, missed = len(comparison.matches), len(comparison.missed)
    counts = f"{found} of {found + missed} objects found, {len(prediction) - found} unmatched"
    return [
        SheetRow(f"{title}: prediction ({counts})", predicted, captions),
        SheetRow(f"{title}: ground truth", true, captions),
    ]


@dataclass(frozen=True)
class _Comparison:
    """Result of matching the predicted tracks of a video with its objects.

    Attributes:
        matches: Object id by track number.
        true_names: Class name of the object by track number, for tracks with a wrong class.
        missed: Ids of the objects that no track matches.
    """

    matches: dict[int, int]
    true_names: dict[int, str]
    missed: set[int]


def _compare(video: Mapping[str, Any], prediction: Prediction, names: Sequence[str]) -> _Comparison:
    matches = match_objects(prediction, video)
    true_labels = {
        object_id: next(item["category_id"] for item in frames if item)
        for object_id, frames in objects_by_id(video).items()
    }
    true_names = {
        number: names[true_labels[matches[number]]]
        for number, label in zip(prediction.numbers, prediction.labels, strict=True)
        if number in matches and true_labels[matches[number]] != label
    }
    return _Comparison(matches, true_names, true_labels.keys() - matches.values())


def _mark(item: Item, comparison: _Comparison) -> Item:
    """The predicted object in the colour of its matched object, or as a white outline."""
    object_id = comparison.matches.get(item.track_id)
    if object_id is None:
        return replace(item, color=_UNMATCHED, is_filled=False)
    name = comparison.true_names.get(item.track_id)
    label = item.label if name is None else f"{item.label} != {name}"
    return replace(item, color=color_of(object_id), label=label)


def _annotated_items(
    annotations: Sequence[Mapping[str, Any]], names: Sequence[str], missed: set[int]
) -> list[Item]:
    """The annotated objects of a frame; those that no prediction matches are marked."""
    items = []
    for annotation in annotations:
        rle, is_missed = annotation.get("segmentation"), annotation["id"] in missed
        x, y, width, height = annotation["bbox"]
        label = make_label(names[annotation["category_id"]], annotation["id"])
        items.append(
            Item(
                annotation["id"],
                f"missed: {label}" if is_missed else label,
                mask=None if rle is None else decode_rle(rle),
                box=(x, y, x + width, y + height) if rle is None else None,
                is_filled=not is_missed,
            )
        )
    return items
