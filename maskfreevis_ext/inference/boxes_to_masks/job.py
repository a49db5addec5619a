"""From an annotation file with boxes to the same file with masks."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from maskfreevis_ext.data.categories import categories_of_file
from maskfreevis_ext.data.json_fields import read_json
from maskfreevis_ext.data.ytvis import load_ytvis_json
from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.files import atomic_write, check_outputs, mark_outputs, write_json
from maskfreevis_ext.inference.boxes_to_masks.budget import PIXEL_HEAD, Budget, Plan
from maskfreevis_ext.inference.boxes_to_masks.chunks import (
    Chunk,
    Source,
    chunk_length,
    count_work,
    plan_chunks,
)
from maskfreevis_ext.inference.boxes_to_masks.formats import (
    YTVIS,
    from_ytvis,
    is_file_format,
    to_ytvis,
)
from maskfreevis_ext.inference.boxes_to_masks.given import (
    GIVEN,
    FrameMasks,
    GivenVideo,
    given_video,
    made_masks,
    same_video,
)
from maskfreevis_ext.inference.boxes_to_masks.masking import MaskMaker, Predictor, TrackMasks
from maskfreevis_ext.inference.boxes_to_masks.partial import (
    CONVERTED_FILES,
    Partial,
    partial_folder,
)
from maskfreevis_ext.inference.boxes_to_masks.review import ReviewEntry, review_page
from maskfreevis_ext.inference.boxes_to_masks.sources import open_sources
from maskfreevis_ext.modeling import EfficientNetLite0
from maskfreevis_ext.pseudo import PixelHeadSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What is wanted.

    Attributes:
        json: Annotations with boxes, a file or folder.
        images: Folder of the frames or of video files, or a video file.
        output: Annotations with masks to write, a file or folder.
        source_format: Format of ``json``, a name of ``data.readers``.
        target_format: Format of ``output``, a name of ``data.writers``.
        method: "pixel_head" or "grabcut".
        steps: Steps of a fit.
        seed: Of the fits.
        minutes: Time for the masks; None: as much as it takes.
        min_confidence: Objects and frames below are marked, in [0, 1].
        review: HTML page to write, or "".
        previous: YouTube-VIS JSON of an earlier run: masks that it made and nobody changed are made
            anew, or "".
        overwrite: Replace files of other origin, too, and unfinished work of other options.
    """

    json: str
    images: str
    output: str
    source_format: str = YTVIS
    target_format: str = YTVIS
    method: str = PIXEL_HEAD
    steps: int = PixelHeadSettings.steps
    seed: int = 0
    minutes: float | None = None
    min_confidence: float = 0.75
    review: str = ""
    previous: str = ""
    overwrite: bool = False


def check_options(options: Options, inputs: Iterable[str] = ()) -> None:
    """Check what can be checked before anything is read.

    Args:
        options: What is wanted.
        inputs: Further files and folders that are read.

    Raises:
        ConfigError: A number is out of range.
        DataError: A file cannot be written, or would replace one.
    """
    if options.steps < 1:
        raise ConfigError(f"--steps: expected at least 1, got {options.steps}.")
    if options.minutes is not None and not options.minutes > 0:
        raise ConfigError(f"--minutes: expected a number > 0, got {options.minutes:g}.")
    if not 0 <= options.min_confidence <= 1:
        raise ConfigError(f"--min-confidence: expected 0..1, got {options.min_confidence:g}.")
    read = [path for path in (options.json, options.images, options.previous) if path]
    is_file = is_file_format(options.target_format)
    check_outputs(
        [
            *(path for path in (options.output if is_file else "", options.review) if path),
            *(partial_folder(options.output) / name for name in CONVERTED_FILES),
        ],
        [*read, *inputs],
        new_folders=[] if is_file else [options.output],
        overwrite=options.overwrite,
    )


@dataclass(frozen=True)
class _Work:
    given: GivenVideo
    chunks: list[Chunk]
    source: Source


def boxes_to_masks(options: Options, predict: Predictor | None = None) -> dict[int, float]:
    """Make a mask for every box of an annotation file, and write the file with them.

    Finished videos are kept beside the output until all are finished; the same call goes on there.

    Args:
        options: What is wanted.
        predict: A trained model, whose masks are joined with those of the pixel head.

    Returns:
        Confidence by annotation id, of the objects without crowds.

    Raises:
        ConfigError: An option is out of range, or the ImageNet weights are not installed.
        DataError: The input cannot be used, or the output not written.
    """
    check_options(options)
    boxes, masks = (partial_folder(options.output) / name for name in CONVERTED_FILES)
    if options.source_format != YTVIS:
        to_ytvis(options.source_format, options.json, options.images, boxes)
        options = replace(options, json=str(boxes))
    content = read_json(options.json)
    given, works = _plan(options, content)
    backbone = _backbone() if options.method == PIXEL_HEAD and works else None
    partial = Partial(options.output, _settings(options, predict), options.overwrite)
    _make_all(works, options, backbone, predict, partial)
    confidences = _fill(content, given, options, partial)
    try:
        if options.review:
            page = _page(content, given, options, partial, confidences)
            with atomic_write(options.review) as file:
                file.write(page.encode())
            mark_outputs([options.review])
        if options.target_format == YTVIS:
            write_json(content, options.output)
            mark_outputs([options.output])
        else:
            write_json(content, masks)
            mark_outputs([masks])
            from_ytvis(masks, options.target_format, options.output, options.overwrite)
    except OSError as error:
        path = error.filename or options.output
        raise DataError(f"{path}: cannot be written: {error.strerror or error}.") from error
    partial.remove()
    return confidences


def _plan(options: Options, content: Mapping[str, Any]) -> tuple[list[GivenVideo], list[_Work]]:
    """The videos that have objects, and what is to be done."""
    videos = load_ytvis_json(options.json, options.images)
    entries = {entry["id"]: entry for entry in content.get("annotations") or []}
    before: list[Any] = []
    made: list[FrameMasks] = []
    if options.previous:
        before = load_ytvis_json(options.previous, "")
        made = made_masks(before, read_json(options.previous))
    given = []
    for video in videos:
        place = same_video(video, before)
        given.append(given_video(video, entries, None if place is None else made[place]))
    given = [one for one in given if one.tracks]
    missing = [one for one in given if one.is_missing.any()]
    sources = open_sources([one.video for one in missing], options.images) if missing else {}
    return given, [_Work(one, _chunks(one), sources[one.video["video_id"]]) for one in missing]


def _chunks(given: GivenVideo) -> list[Chunk]:
    present = given.is_present
    mean = float(present.sum() / max(present.any(0).sum(), 1))
    return plan_chunks(given.is_missing, present, chunk_length(mean, given.size))


def _backbone() -> nn.Module:
    backbone = EfficientNetLite0()
    backbone.load_imagenet_weights()
    return backbone.eval()


def _settings(options: Options, predict: Predictor | None) -> dict[str, Any]:
    """What masks depend on, to tell the files of another run."""
    with open(options.json, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return {
        "json": digest,
        "images": os.path.realpath(options.images),
        "method": options.method,
        "steps": options.steps,
        "seed": options.seed,
        "previous": os.path.realpath(options.previous) if options.previous else "",
        "model": "" if predict is None else str(getattr(predict, "name", "model")),
        "pictures": bool(options.review),
    }


def _make_all(
    works: Sequence[_Work],
    options: Options,
    backbone: nn.Module | None,
    predict: Predictor | None,
    partial: Partial,
) -> None:
    """Make the masks of all videos that are not finished, and keep them."""
    counts = [count_work(work.chunks, work.given.is_missing, options.steps) for work in works]
    boxes, steps = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    budget = Budget(options.minutes, options.method, boxes, steps)
    settings = PixelHeadSettings(steps=options.steps, seed=options.seed)
    with tqdm(total=boxes, desc="masks", unit="box", smoothing=0.1) as bar:

        def progress(count: int, plan: Plan) -> None:
            bar.set_postfix_str(_how(plan, options.steps), refresh=False)
            bar.update(count)

        maker = MaskMaker(backbone, settings, budget, predict, progress, bool(options.review))
        for work, (count, of_fits) in zip(works, counts, strict=True):
            video_id = work.given.video["video_id"]
            if partial.load(video_id) is not None:
                budget.skip(count, of_fits)
                bar.update(count)
                continue
            results = maker.run(work.given, work.chunks, work.source)
            partial.save(video_id, work.given.tracks, results)


def _how(plan: Plan, steps: int) -> str:
    if plan.method == PIXEL_HEAD:
        return f"{max(round(plan.share * steps), 1)} steps"
    return plan.method


def _fill(
    content: dict[str, Any], given: Sequence[GivenVideo], options: Options, partial: Partial
) -> dict[int, float]:
    """Put all masks into the annotations; returns confidence by annotation id."""
    entries = {entry["id"]: entry for entry in content.get("annotations") or []}
    confidences: dict[int, float] = {}
    for one in given:
        results = partial.load(one.video["video_id"])
        for track in one.tracks:
            if results is None:  # all of its masks are given
                entries[track].update(confidence=1.0, mask_source=GIVEN, doubtful=False)
            else:
                fill_in(entries[track], results[track], options.min_confidence)
            confidences[track] = entries[track]["confidence"]
    return confidences


def fill_in(annotation: dict[str, Any], result: TrackMasks, min_confidence: float) -> None:
    """Put the masks of an object and what is known about them into its annotation.

    Args:
        annotation: Changed in place; boxes, ids and masks that it had stay.
        result: The masks.
        min_confidence: Below it object and frames are marked.
    """
    length = len(result.masks)
    for field, values in (("segmentations", result.masks), ("areas", result.areas)):
        before = annotation.get(field) or [None] * length
        annotation[field] = [
            old if source in (GIVEN, None) and old is not None else new
            for old, new, source in zip(before, values, result.sources, strict=True)
        ]
    known = [value for value in result.confidences if value is not None]
    annotation["confidence"] = round(float(np.mean(known)), 4) if known else 0.0
    annotation["confidences"] = result.confidences
    made = {source for source in result.sources if source is not None}
    annotation.pop("mask_sources", None)
    annotation["mask_source"] = made.pop() if len(made) == 1 else "mixed"
    if annotation["mask_source"] == "mixed":
        annotation["mask_sources"] = result.sources
    annotation["doubtful"] = annotation["confidence"] < min_confidence
    annotation["doubtful_frames"] = [
        frame
        for frame, value in enumerate(result.confidences)
        if value is not None and value < min_confidence
    ]


def _page(
    content: Mapping[str, Any],
    given: Sequence[GivenVideo],
    options: Options,
    partial: Partial,
    confidences: Mapping[int, float],
) -> str:
    """The review page; of the pictures of all videos only those that are shown are kept."""
    categories = {
        category.id: category.name for category in categories_of_file(dict(content)).values()
    }
    entries = {entry["id"]: entry for entry in content.get("annotations") or []}
    video_of = {track: one for one in given for track in one.tracks}
    order = sorted(confidences, key=lambda track: (confidences[track], track))

    def rows() -> Iterator[ReviewEntry]:
        loaded: tuple[int, dict[int, TrackMasks] | None] = (-1, None)
        for track in order:
            video = video_of[track].video
            if loaded[0] != video["video_id"]:
                loaded = (video["video_id"], partial.load(video["video_id"]))
            if loaded[1] is None:
                continue
            entry, result = entries[track], loaded[1][track]
            counts = Counter(source for source in result.sources if source is not None)
            yield ReviewEntry(
                track,
                Path(video["file_names"][0]).parent.name or str(video["video_id"]),
                categories.get(entry["category_id"], ""),
                entry["confidence"],
                entry["doubtful"],
                entry["doubtful_frames"],
                ", ".join(f"{name} {count}" for name, count in counts.most_common()),
                result.pictures.in_order(),
            )

    return review_page(Path(options.json).name, rows(), len(order), options.min_confidence)
