"""Random annotation sets, and files of the formats that the package reads but does not write."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_util

from maskfreevis_ext.data.annotation_form import AnnotationSet, LazyVideo, Track, Video
from maskfreevis_ext.data.writers import WRITERS, WriteOptions
from maskfreevis_ext.rle import clean_rle, decode_rle, encode_masks

CLASSES = {1: "car", 2: "pedestrian"}


def make_set(videos: list[Video], classes: dict[int, str] | None = None) -> AnnotationSet:
    """A set of videos that lie in memory; each reading gives a copy."""
    lazy = [LazyVideo(video.name, partial(copy.deepcopy, video)) for video in videos]
    return AnnotationSet("memory", dict(classes or CLASSES), lazy, Counter())


def mask_of(pixels: np.ndarray) -> dict[str, Any]:
    """RLE of a mask (H, W), as the internal form has it."""
    return clean_rle(encode_masks(pixels[None])[0])[0]


def tight(rle: dict[str, Any]) -> tuple[float, ...]:
    """The box of a mask."""
    return tuple(float(number) for number in mask_util.toBbox(rle))


@st.composite
def videos(draw: st.DrawFn, kind: str = "any", most_videos: int = 2) -> list[Video]:
    """Videos with boxes of quarter pixels and random masks.

    ``kind``: "any" (boxes, some with masks), "boxes", or "masks" (tight boxes around masks that do
    not overlap, so that an index picture can hold them).
    """
    found = []
    for number in range(1, draw(st.integers(1, most_videos)) + 1):
        height, width = draw(st.integers(4, 12)), draw(st.integers(4, 12))
        length = draw(st.integers(1, 4))
        name = f"v{number}"
        video = Video(number, name, height, width, [f"{name}/{t:05d}.jpg" for t in range(length)])
        seed = draw(st.integers(0, 2**31))
        rng = np.random.RandomState(seed)
        owners = rng.randint(0, 4, size=(length, height, width))
        for track_id in range(1, draw(st.integers(0, 3)) + 1):
            track = Track(track_id, draw(st.sampled_from(sorted(CLASSES))))
            for t in range(length):
                if rng.rand() < 0.3:
                    continue
                pixels = owners[t] == track_id
                if kind == "masks" or (kind == "any" and rng.rand() < 0.5):
                    if not pixels.any():
                        continue
                    track.masks[t] = mask_of(pixels)
                    track.boxes[t] = tight(track.masks[t])
                if kind != "masks" and (t not in track.boxes or rng.rand() < 0.5):
                    x0, x1 = sorted(rng.choice(4 * width + 1, 2, replace=False) / 4)
                    y0, y1 = sorted(rng.choice(4 * height + 1, 2, replace=False) / 4)
                    track.boxes[t] = tuple(map(float, (x0, y0, x1 - x0, y1 - y0)))
            if track.boxes:
                video.tracks.append(track)
        found.append(video)
    return found


def plain(dataset: AnnotationSet, *, masks: bool = True, classes: bool = True) -> list[Any]:
    """What a set holds, as values that compare: names, sizes, tracks by id, boxes, masks."""
    found = []
    for video in dataset:
        tracks = []
        for track in sorted(video.tracks, key=lambda track: track.id):
            tracks.append(
                (
                    track.id,
                    dataset.categories[track.category_id] if classes else "object",
                    {t: tuple(np.round(box, 6)) for t, box in sorted(track.boxes.items())},
                    {t: m["counts"] for t, m in sorted(track.masks.items())} if masks else {},
                )
            )
        found.append((video.name, video.height, video.width, len(video.file_names), tracks))
    return found


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write files at relative paths."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def written(dataset: AnnotationSet, name: str, folder: Path, **options: Any) -> str:
    """Path of a set that was written by the package's own writer."""
    writer = WRITERS[name]
    path = folder / f"{name}{writer.suffix}"
    if not writer.suffix:
        path.mkdir(parents=True)
    writer.write(dataset, str(path), WriteOptions(**options))
    return str(path)


def as_mot(dataset: AnnotationSet, official: bool = True) -> dict[str, bytes]:
    """MOTChallenge folders: ``<video>/gt/gt.txt`` and ``seqinfo.ini``."""
    files = {}
    shift = 1 if official else 0
    for video in dataset:
        lines = []
        for track in video.tracks:
            class_id = {"car": 3, "pedestrian": 1}[dataset.categories[track.category_id]]
            for t, (x, y, w, h) in track.boxes.items():
                box = f"{x + shift},{y + shift},{w},{h}"
                lines.append(f"{t + 1},{track.id},{box},1,{class_id},1\n")
        files[f"{video.name}/gt/gt.txt"] = "".join(lines).encode()
        if official:
            files[f"{video.name}/seqinfo.ini"] = (
                f"[Sequence]\nname={video.name}\nimDir=img1\nframeRate=30\n"
                f"seqLength={len(video.file_names)}\nimWidth={video.width}\n"
                f"imHeight={video.height}\nimExt=.jpg\n"
            ).encode()
    return files


def png(pixels: np.ndarray) -> bytes:
    """A grey PNG of 8 or 16 bits."""

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def as_kitti_mots(dataset: AnnotationSet) -> dict[str, bytes]:
    """``<video>/<frame>.png`` of 16 bits."""
    files = {}
    for video in dataset:
        for t in range(len(video.file_names)):
            pixels = np.zeros((video.height, video.width), dtype=np.uint16)
            for track in video.tracks:
                if t in track.masks:
                    pixels[decode_rle(track.masks[t])] = track.category_id * 1000 + track.id
            files[f"{video.name}/{t:06d}.png"] = png(pixels)
    return files


def as_youtube_vos(dataset: AnnotationSet) -> dict[str, bytes]:
    """``meta.json`` and ``Annotations/<video>/<frame>.png``."""
    files, meta = {}, {}
    for video in dataset:
        for t in range(len(video.file_names)):
            pixels = np.zeros((video.height, video.width), dtype=np.uint8)
            for track in video.tracks:
                if t in track.masks:
                    pixels[decode_rle(track.masks[t])] = track.id
            files[f"Annotations/{video.name}/{5 * t:05d}.png"] = png(pixels)
        meta[video.name] = {
            "objects": {
                str(track.id): {"category": dataset.categories[track.category_id], "frames": []}
                for track in video.tracks
            }
        }
    return {**files, "meta.json": json.dumps({"videos": meta}).encode()}


def _text_rle(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def as_bdd100k(dataset: AnnotationSet) -> dict[str, bytes]:
    """One list of frames a video, with box2d and rle."""
    files = {}
    for video in dataset:
        frames = []
        for t, name in enumerate(video.file_names):
            labels = []
            for track in video.tracks:
                if t not in track.boxes:
                    continue
                x, y, w, h = track.boxes[t]
                label = {
                    "id": str(track.id),
                    "category": dataset.categories[track.category_id],
                    "attributes": {"occluded": False, "crowd": False},
                    "box2d": {"x1": x, "y1": y, "x2": x + w - 1, "y2": y + h - 1},
                }
                if t in track.masks:
                    label["rle"] = _text_rle(track.masks[t])
                labels.append(label)
            frames.append(
                {
                    "name": os.path.basename(name),
                    "videoName": video.name,
                    "frameIndex": t,
                    "size": {"width": video.width, "height": video.height},
                    "labels": labels,
                }
            )
        files[f"{video.name}.json"] = json.dumps(frames).encode()
    return files


def as_burst(dataset: AnnotationSet) -> dict[str, bytes]:
    """``sequences`` with ``segmentations`` by track."""
    sequences = []
    for video in dataset:
        frames = [
            {
                str(track.id): {"rle": track.masks[t]["counts"].decode(), "is_gt": True}
                for track in video.tracks
                if t in track.masks
            }
            for t in range(len(video.file_names))
        ]
        sequences.append(
            {
                "id": video.id,
                "seq_name": video.name,
                "width": video.width,
                "height": video.height,
                "annotated_image_paths": [os.path.basename(name) for name in video.file_names],
                "track_category_ids": {str(t.id): t.category_id for t in video.tracks},
                "segmentations": frames,
            }
        )
    categories = [{"id": i, "name": name} for i, name in dataset.categories.items()]
    content = {"sequences": sequences, "categories": categories, "split": "val"}
    return {"burst.json": json.dumps(content).encode()}


def as_yolo(dataset: AnnotationSet) -> dict[str, bytes]:
    """``labels/<video>_<n>.txt`` with the track in the last column, from 1."""
    files = {"labels/classes.txt": "".join(f"{n}\n" for n in dataset.categories.values()).encode()}
    for video in dataset:
        for t in range(len(video.file_names)):
            lines = []
            for track in video.tracks:
                if t in track.boxes:
                    x, y, w, h = track.boxes[t]
                    sides = ((x + w / 2) / video.width, (y + h / 2) / video.height)
                    sides = (*sides, w / video.width, h / video.height)
                    text = " ".join(map(repr, sides))
                    lines.append(f"{track.category_id - 1} {text} {track.id}\n")
            files[f"labels/{video.name}_{t + 1}.txt"] = "".join(lines).encode()
    return files


def as_labelme(dataset: AnnotationSet) -> dict[str, bytes]:
    """``<video>/<frame>.json`` with rectangles and masks of a group."""

    files = {}
    for video in dataset:
        for t, name in enumerate(video.file_names):
            shapes = []
            for track in video.tracks:
                if t not in track.boxes:
                    continue
                x, y, w, h = track.boxes[t]
                label = dataset.categories[track.category_id]
                head = {"label": label, "group_id": track.id, "flags": {}}
                points = [[x, y], [x + w, y + h]]
                shapes.append({**head, "shape_type": "rectangle", "points": points})
                if t in track.masks:
                    pixels = decode_rle(track.masks[t]).astype(np.uint8) * 255
                    text = base64.b64encode(png(pixels)).decode()
                    corners = [[0, 0], [video.width - 1, video.height - 1]]
                    mask = {"shape_type": "mask", "points": corners, "mask": text}
                    shapes.append({**head, **mask})
            content = {
                "version": "5.5.0",
                "flags": {},
                "shapes": shapes,
                "imagePath": os.path.basename(name),
                "imageData": None,
                "imageHeight": video.height,
                "imageWidth": video.width,
            }
            files[f"{video.name}/{t:05d}.json"] = json.dumps(content).encode()
    return files


def as_labelstudio(dataset: AnnotationSet) -> dict[str, bytes]:
    """A list of tasks; each frame is a keyframe, disabled before a gap."""
    tasks = []
    for video in dataset:
        results = []
        for track in video.tracks:
            sequence = []
            for t in sorted(track.boxes):
                scales = (100 / video.width, 100 / video.height)
                values = [s * k for s, k in zip(track.boxes[t], scales * 2, strict=True)]
                sides = dict(zip(("x", "y", "width", "height"), values, strict=True))
                enabled = t + 1 in track.boxes
                sequence.append({"frame": t + 1, "enabled": enabled, "rotation": 0, **sides})
            length = len(video.file_names)
            label = dataset.categories[track.category_id]
            value = {"framesCount": length, "sequence": sequence, "labels": [label]}
            results.append(
                {
                    "id": f"r{track.id}",
                    "type": "videorectangle",
                    "value": value,
                    "original_width": video.width,
                    "original_height": video.height,
                }
            )
        data = {"video": f"/data/upload/1/{video.name}.mp4"}
        tasks.append({"id": video.id, "data": data, "annotations": [{"result": results}]})
    return {"tasks.json": json.dumps(tasks).encode()}
